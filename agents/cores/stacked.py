"""Cores in a row: each reads the output of the one before."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...common.checks import require_at_least
from .base import MemoryCore, first_output
from .lstm import LSTMCore
from .registry import register_core
from .stm import STMCore


class StackedCore(MemoryCore):
    """A chain of cores as one core.

    Its state is flat; the leaves carry the names of their cores: ``lstm_hidden``, ``lstm_cell``, ``stm_item``.

    :param cores: the cores by name, first to last; each takes the output of the one before as its input. The same core
        may come twice, with one set of weights and a state for each time
    :param concatenate: whether the outputs of all cores side by side, last core first, are the output, or that of the
        last core alone
    :param output_size: a linear map to as many features follows; None: no map
    :raises ValueError: if there is no core, a name will not do, or a core does not fit the one before
    """

    def __init__(
        self, cores: Mapping[str, MemoryCore], concatenate: bool = False, output_size: int | None = None
    ) -> None:
        if not isinstance(cores, Mapping) or not cores:
            raise ValueError(f'a stack needs at least one core, each by its name: {{"name": core}}; got {cores!r}')
        for name in cores:
            if not str(name).isidentifier() or name.startswith("_") or hasattr(nn.ModuleDict(), name):
                raise ValueError(f"'{name}' cannot be the name of a core in a stack: choose another word")
        for before, (name, core) in zip(cores.values(), list(cores.items())[1:], strict=False):
            if core.input_size != before.output_size:
                raise ValueError(
                    f"core '{name}' takes {core.input_size} features, but the one before it gives {before.output_size}"
                )
        chain = list(cores.values())
        width = sum(core.output_size for core in chain) if concatenate else chain[-1].output_size
        leaves = [(f"{name}_{leaf}", shape) for name, core in cores.items() for leaf, shape in core.state_spec.items()]
        names, shapes = tuple(name for name, _ in leaves), tuple(shape for _, shape in leaves)
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two leaves of the state would be named '{twice[0]}': name the cores otherwise")
        super().__init__(
            chain[0].input_size, width if output_size is None else output_size, stacked_state(*names), shapes
        )
        self.cores = nn.ModuleDict(cores)
        self.concatenate = concatenate
        self.out = nn.Identity() if output_size is None else nn.Linear(width, output_size)

    def initial_state(self, batch_size: int) -> Any:
        return self._join(core.initial_state(batch_size) for core in self._chain)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        outputs, parts = [x], []
        for core, part in zip(self._chain, self._split(state), strict=True):
            y, part = core.step(outputs[-1], part)
            outputs.append(y)
            parts.append(part)
        return self._output(outputs[1:]), self._join(parts)

    def forward(self, x: Tensor, state: Any, starts: Tensor, since: int = 0) -> tuple[Tensor, Any]:
        """Core after core, each over the whole sequence; the last gives no more outputs than are asked for."""
        since = first_output(since, len(x))
        outputs, parts = [x], []
        for i, (core, part) in enumerate(zip(self._chain, self._split(state), strict=True), start=1):
            y, part = core(outputs[-1], part, starts, since=since if i == len(self._chain) else 0)
            outputs.append(y)
            parts.append(part)
        return self._output([*(y[since:] for y in outputs[1:-1]), outputs[-1]]), self._join(parts)

    def gates(self, x: Tensor, state: Any) -> dict[str, Tensor]:
        gates = {}
        for name, core, part in zip(self.cores, self._chain, self._split(state), strict=True):
            gates.update({f"{name}_{gate}": value for gate, value in core.gates(x, part).items()})
            x, _ = core.step(x, part)
        return gates

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_state_type"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._state_type = stacked_state(*self.state_spec)

    def _output(self, outputs: list[Tensor]) -> Tensor:
        """Outputs of the cores [..., O_i] -> y [..., O]."""
        y = torch.cat(outputs[::-1], dim=-1) if self.concatenate else outputs[-1]
        with torch.autocast(y.device.type, enabled=False):
            return self.out(y)

    @property
    def _chain(self) -> list[MemoryCore]:
        return cast(list[MemoryCore], list(self.cores.values()))

    def _join(self, parts: Iterable[Any]) -> Any:
        """One flat state of the states of the cores."""
        return self._state_type(*itertools.chain.from_iterable(parts))

    def _split(self, state: Any) -> list[Any]:
        """The states of the cores, of one flat state."""
        leaves = iter(state)
        return [core._state_type(*itertools.islice(leaves, len(core.state_spec))) for core in self._chain]


@functools.cache
def stacked_state(*names: str) -> Any:
    """The NamedTuple class of states with these leaves. Its states can be pickled, though it is not a module's own."""
    methods = {"__slots__": (), "__reduce__": lambda self: (_make_state, (names, *self))}
    return type("StackedState", (cast(Any, namedtuple)("StackedState", names),), methods)


def _make_state(names: tuple[str, ...], *leaves: Tensor) -> Any:
    return stacked_state(*names)(*leaves)


def with_options_of(core: type[MemoryCore]) -> Callable[[Any], Any]:
    """Decorator of a factory: its signature spells out what its ``**options`` stand for, for the registry and the
    command line; ``options_of`` says where they are explained."""

    def decorator(factory: Any) -> Any:
        own = inspect.signature(factory, eval_str=True).parameters
        options = inspect.signature(core, eval_str=True).parameters
        named = [p for p in own.values() if p.kind is not p.VAR_KEYWORD]
        factory.options_of = core
        factory.__signature__ = inspect.Signature([*named, *(p for name, p in options.items() if name not in own)])
        return factory

    return decorator


@register_core("lstm_stm")
@with_options_of(STMCore)
def lstm_stm(input_size: int, output_size: int | None = None, lstm_size: int = 256, **options: Any) -> StackedCore:
    """An LSTM before an STM of the same output width, both outputs side by side: the wiring of the released Pong agent.

    :param lstm_size: number of cells of the LSTM
    :param options: the options of ``stm``
    :raises ValueError: if an option is out of range
    """
    require_at_least(1, lstm_size=lstm_size)
    lstm = LSTMCore(input_size, hidden_size=lstm_size)
    stm = STMCore(lstm_size, lstm_size, **options)
    return StackedCore({"lstm": lstm, "stm": stm}, concatenate=True, output_size=output_size)
