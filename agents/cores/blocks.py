"""Cores made of cores: in a row, within a residual block, or both."""

from __future__ import annotations

import copyreg
import functools
import itertools
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map, without_autocast


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

    keeps_autocast = True

    def __init__(
        self, cores: Mapping[str, MemoryCore], concatenate: bool = False, output_size: Count | None = None
    ) -> None:
        require_options(StackedCore, {"output_size": output_size})
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
        self.out = output_map(width, output_size)

    def initial_state(self, batch_size: int) -> Any:
        return self._join(core.initial_state(batch_size) for core in self._chain)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        outputs, parts = [x], []
        for core, part in zip(self._chain, self._split(state), strict=True):
            y, part = core.step(outputs[-1], part)
            outputs.append(y)
            parts.append(part)
        return self._output(outputs[1:]), self._join(parts)

    def sequence(self, x: Tensor, state: Any, starts: Tensor, since: int) -> tuple[Tensor, Any]:
        """Core after core, each over the whole sequence; the last gives no more outputs than are asked for."""
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

    def _output(self, outputs: list[Tensor]) -> Tensor:
        """Outputs of the cores [..., O_i] -> y [..., O]."""
        y = torch.cat(outputs[::-1], dim=-1) if self.concatenate else outputs[-1]
        with without_autocast(y.device):
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


class ResidualCore(MemoryCore):
    """A core within a residual block, as layers of transformers have it, of one width from input to output:

        h = x + g ∘ core(LN(x)),  y = h + MLP(LN(h)),

    where g is 1, or a gate σ(W x + b) that starts almost closed, so that at first little of the core is added. This is
    the "output" gate of Parisotto et al. (2020, "Stabilizing Transformers for Reinforcement Learning"), who gate the
    MLP too.

    Its state is that of the core.

    :param core: a core; a linear map follows where its outputs have another width than its inputs
    :param gated: whether the gate decides what is added, or everything is
    :param mlp_size: width of the hidden layer of the MLP; None: four times that of the block
    :raises ValueError: if ``mlp_size`` is not a positive integer
    """

    keeps_autocast = True

    def __init__(self, core: MemoryCore, gated: bool = False, mlp_size: Count | None = None) -> None:
        require_options(ResidualCore, locals())
        width = core.input_size
        super().__init__(width, width, core._state_type, tuple(core.state_spec.values()))
        self.core = core
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.out = output_map(core.output_size, None if core.output_size == width else width)
        self.gate = nn.Linear(width, width) if gated else None
        if self.gate is not None:
            nn.init.constant_(self.gate.bias, -2.0)
        hidden = 4 * width if mlp_size is None else mlp_size
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def initial_state(self, batch_size: int) -> Any:
        return self.core.initial_state(batch_size)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.core.step(self._normalised(x), state)
        return self._block(x, y), state

    def sequence(self, x: Tensor, state: Any, starts: Tensor, since: int) -> tuple[Tensor, Any]:
        y, state = self.core(self._normalised(x), state, starts, since)
        return self._block(x[since:], y), state

    def gates(self, x: Tensor, state: Any) -> dict[str, Tensor]:
        return self.core.gates(self._normalised(x), state)

    @full_precision
    def _normalised(self, x: Tensor) -> Tensor:
        return self.norm(x)

    @full_precision
    def _block(self, x: Tensor, y: Tensor) -> Tensor:
        """x [..., F], output of the core [..., O] -> [..., F]."""
        y = self.out(y)
        x = x + (y if self.gate is None else self.gate(x).sigmoid() * y)
        return x + self.mlp(self.mlp_norm(x))


def in_layers(
    make: Callable[[int, int | None], MemoryCore],
    input_size: int,
    output_size: int | None = None,
    layers: Count = 1,
    residual: bool = False,
) -> MemoryCore:
    """Cores of one kind in a row, as one core; a single one that stands in no block as it is.

    :param make: (input size, output size or None) -> core
    :param layers: number of cores in a row, each reading the output of the one before
    :param residual: whether each of them stands in a residual block, as layers of transformers do, which is as wide as
        the input: normalisation, core, residual connection, MLP
    :raises ValueError: if ``layers`` is not a positive integer
    """
    require_options(in_layers, {"layers": layers, "residual": residual})
    if layers == 1 and not residual:
        return make(input_size, output_size)
    cores: dict[str, MemoryCore] = {}
    width = input_size
    for layer in range(1, layers + 1):
        own_map = layer == layers and not residual  # of the last core to the outputs, where it has no block around it
        core = make(width, output_size if own_map else None)
        cores[f"layer{layer}"] = ResidualCore(core) if residual else core
        width = cores[f"layer{layer}"].output_size
    return StackedCore(cores, output_size=output_size if residual else None)


class _StateType(type):
    """The type of state classes that are made at run time, so that these can be pickled: by the names of the leaves."""


@functools.cache
def stacked_state(*names: str) -> Any:
    """The NamedTuple class of states with these leaves."""
    return _StateType("StackedState", (cast(Any, namedtuple)("StackedState", names),), {"__slots__": ()})


copyreg.pickle(cast(Any, _StateType), lambda state_type: (stacked_state, state_type._fields))
