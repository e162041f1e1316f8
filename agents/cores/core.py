"""The memory-core contract: what every recurrent memory of relmem is.

Sequences are time first, batch second. A core is a pure function of its input and its state; whoever holds the
state decides when to carry it, reset it, store it or detach it.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ...common.options import Count, require_options
from .scan import loop
from .weights import require_same_tensors

State = Any
"""A NamedTuple of tensors, each [B, ...]; every core declares its own class."""


def without_autocast(device: torch.device) -> AbstractContextManager:
    """A context outside autocast; nothing where there is none, since PyTorch cannot export one within another."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def full_precision(method: Callable) -> Callable:
    """Run ``method(self, x, ...)`` outside autocast, with ``x`` in the dtype of the core's parameters.

    Rounding errors of a recurrence accumulate over the whole episode, so it stays in float32 where the feature
    extractor before it runs in bfloat16.
    """

    @functools.wraps(method)
    def wrapper(self: MemoryCore, x: Tensor, *args: Any, **options: Any) -> Any:
        with without_autocast(x.device):
            return method(self, x.to(self.dtype), *args, **options)

    return wrapper


class MemoryCore(nn.Module):
    """A recurrent memory: ``step`` defines it, ``forward`` runs it over a sequence with exact episode resets.

    A subclass calls ``super().__init__`` with the NamedTuple class of its state and the per-environment shape of
    each leaf, and defines ``step``. It overrides ``initial_state`` if its memory does not start at zero, and
    ``sequence`` if it has a faster way to the same numbers.

    :param input_size: number of input features F
    :param output_size: number of output features O
    :param state: NamedTuple class of the state
    :param shapes: shape of each leaf of the state, without the batch dimension
    :raises ValueError: if a size is not a positive integer, or state and shapes do not go together
    """

    _like: Tensor

    keeps_autocast = False
    """Whether ``sequence`` runs inside the caller's ``torch.autocast``, since the core itself says what it casts."""

    def __init__(self, input_size: Count, output_size: Count, state: type, shapes: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        require_options(MemoryCore, {"input_size": input_size, "output_size": output_size})
        names = getattr(state, "_fields", None)
        if names is None or len(names) != len(shapes) or not all(isinstance(shape, tuple) for shape in shapes):
            raise ValueError(
                f"{type(self).__name__} must give its state as a NamedTuple class and the shape of each leaf, without "
                f"the batch dimension, such as ((16,), (4, 8)); got {state!r} and {shapes!r}"
            )
        self.input_size = input_size
        self.output_size = output_size
        self._state_type: Any = state
        self.state_spec: dict[str, tuple[int, ...]] = dict(zip(names, shapes, strict=True))
        # Not a parameter: it only remembers device and dtype for cores that have no parameters.
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of parameters and state: float32, or float64 after ``core.double()``."""
        return self._like.dtype

    @property
    def state_size(self) -> int:
        """Number of floats in the state of one environment."""
        return sum(math.prod(shape) for shape in self.state_spec.values())

    def initial_state(self, batch_size: int) -> State:
        """The state before the first observation of an episode: zeros [B, ...] unless a core says otherwise."""
        return self._state_type(*(self._like.new_zeros(batch_size, *shape) for shape in self.state_spec.values()))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One time step: x [B, F], state -> (y [B, O], next state)."""
        raise NotImplementedError(f"{type(self).__name__} must define step(x, state) -> (y, next state)")

    def sequence(self, x: Tensor, state: State, starts: Tensor, since: int) -> tuple[Tensor, State]:
        """The numbers of a loop over ``step``; a core overrides this where it has a faster way to them.

        :param x: inputs [T, B, F] of the core's dtype, at least two steps of them
        :param state: the state before the first step
        :param starts: whether an episode begins at a step, bool [T, B]; ``reset`` does what follows from it
        :param since: first step whose output is asked for, from 0 to T - 1
        :return: outputs [T - since, B, O], and the state after the last step
        """
        outputs, state = loop(self.step, self.reset, x, state, starts)
        return torch.stack(outputs[since:]), state

    def forward(self, x: Tensor, state: State, starts: Tensor, since: int = 0) -> tuple[Tensor, State]:
        """A sequence of steps: x [T, B, F], state, starts [T, B] -> (y [T, B, O], state after the last step).

        ``starts[t, b]`` is true where ``x[t, b]`` is the first observation of an episode (SB3's
        ``episode_starts``); the state of that row is then replaced by the initial one before the input is used.

        :param since: first step whose output is returned, counted from the end where negative: with -1, y is the
            output of the last step alone [1, B, O]. What is not asked for need not be computed
        :raises ValueError: if inputs, state and starts do not have these shapes, or there is no such step
        """
        self._require_shapes(x, state, starts)
        since = first_output(since, len(x))
        x, starts = x.to(self.dtype), starts.bool()
        mixed = self.keeps_autocast and len(x) > 1
        with nullcontext() if mixed else without_autocast(x.device):
            if len(x) > 1:
                return self.sequence(x, state, starts, since)
            # As in a rollout: without a branch on data it can be exported, and no GPU is waited for.
            y, state = self.step(x[0], self.reset(state, starts[0]))
            return y.unsqueeze(0), state

    def __call__(self, x: Tensor, state: State, starts: Tensor, since: int = 0, **options: Any) -> Any:
        """Call ``forward``. One of a core's own may leave out ``since``: it then computes all outputs, and those that
        nobody asked for are cut off."""
        if since == 0:
            return super().__call__(x, state, starts, **options)
        if self._forward_takes_since:
            return super().__call__(x, state, starts, since=since, **options)
        y, state = super().__call__(x, state, starts, **options)
        return y[first_output(since, len(y)) :], state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take over weights.

        :raises ValueError: if they are of another configuration, naming the first tensor that differs
        """
        if strict:
            require_same_tensors(self, state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    @functools.cached_property
    def _forward_takes_since(self) -> bool:
        return "since" in inspect.signature(self.forward).parameters

    def gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        """The gates that ``step`` would use, by name, each in (0, 1), for logs; a core without gates has none."""
        return {}

    def reset(self, state: State, starts: Tensor) -> State:
        """Replace the state by the initial one where starts [B] is true, by selection: a state that has overflowed
        does not leak, and an initial state may be anything."""
        starts = starts.bool()
        initial = self.initial_state(starts.shape[0])
        return type(state)(
            *(
                torch.where(starts.view(-1, *[1] * (old.dim() - 1)), new, old)
                for new, old in zip(initial, state, strict=True)
            )
        )

    def pack(self, state: State) -> Tensor:
        """Flatten a state into [B, state_size], for buffers and transport."""
        return torch.cat([leaf.flatten(1) for leaf in state], dim=1)

    def unpack(self, packed: Tensor) -> State:
        """The state whose ``pack`` is ``packed`` [B, state_size]."""
        leaves = packed.split([math.prod(shape) for shape in self.state_spec.values()], dim=1)
        return self._state_type(
            *(leaf.unflatten(1, shape) for leaf, shape in zip(leaves, self.state_spec.values(), strict=True))
        )

    def _require_shapes(self, x: Tensor, state: State, starts: Tensor) -> None:
        """Raise a ValueError unless the inputs of ``forward`` fit each other and the core."""
        if x.dim() != 3 or x.shape[2] != self.input_size or not x.shape[0] or not x.shape[1]:
            raise ValueError(
                f"x must be [T, B, {self.input_size}], at least one step of at least one sequence, time first; "
                f"got {list(x.shape)}"
            )
        if starts.shape != x.shape[:2]:
            raise ValueError(f"starts must be [T, B] = {list(x.shape[:2])} as x is, got {list(starts.shape)}")
        if getattr(state, "_fields", None) != self._state_type._fields:
            raise ValueError(f"the state must be one of {', '.join(self.state_spec)}, got {type(state).__name__}")
        for leaf, (name, shape) in zip(state, self.state_spec.items(), strict=True):
            if leaf.shape != (x.shape[1], *shape):
                raise ValueError(
                    f"'{name}' of the state must be [B, ...] = {[x.shape[1], *shape]}, got {list(leaf.shape)}"
                )


def output_map(width: int, output_size: int | None) -> nn.Module:
    """What takes a core's own features to its outputs: a linear map, or nothing where no output size is asked for."""
    return nn.Identity() if output_size is None else nn.Linear(width, output_size)


def start_orthogonal(module: nn.Module) -> None:
    """Let weight matrices start orthogonal, and biases at zero."""
    for parameter in module.parameters():
        nn.init.orthogonal_(parameter) if parameter.dim() == 2 else nn.init.zeros_(parameter)


def head_width(hidden_size: int, heads: int) -> int:
    """Number of units of each head; a ValueError if the heads do not divide the units."""
    if hidden_size % heads:
        valid = [number for number in range(1, hidden_size + 1) if hidden_size % number == 0]
        nearest = min(valid, key=lambda number: abs(number - heads))
        raise ValueError(f"heads must divide hidden_size {hidden_size}: {heads} do not, {nearest} would")
    return hidden_size // heads


def first_output(since: int, length: int) -> int:
    """``since`` counted from the start of a sequence; a ValueError if the sequence has no such step."""
    if not -length <= since < length:
        raise ValueError(f"since must be a step of the sequence, from {-length} to {length - 1}, got {since}")
    return since % length
