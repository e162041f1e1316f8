"""The memory-core contract: what every recurrent memory of relmem is.

Sequences are time first, batch second. A core is a pure function of its input and its state; whoever holds the
state decides when to carry it, reset it, store it or detach it.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...common.checks import require_at_least

State = Any
"""A NamedTuple of tensors, each [B, ...]; every core declares its own class."""


def full_precision(method: Callable) -> Callable:
    """Run ``method(self, x, ...)`` outside autocast, with ``x`` in the dtype of the core's parameters.

    Rounding errors of a recurrence accumulate over the whole episode, so it stays in float32 where the feature
    extractor before it runs in bfloat16.
    """

    @functools.wraps(method)
    def wrapper(self: MemoryCore, x: Tensor, *args: Any, **options: Any) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return method(self, x.to(self.dtype), *args, **options)

    return wrapper


def without_autocast(backward: Callable) -> Any:
    """For the ``backward(ctx, *grads)`` of an autograd function: what it computes is not cast, even where the caller
    runs the backward pass inside autocast."""

    @functools.wraps(backward)
    def wrapper(ctx: Any, *grads: Any) -> Any:
        with torch.autocast(grads[0].device.type, enabled=False):
            return backward(ctx, *grads)

    return wrapper


class MemoryCore(nn.Module):
    """A recurrent memory: ``step`` defines it, ``forward`` runs it over a sequence with exact episode resets.

    A subclass calls ``super().__init__`` with the NamedTuple class of its state and the per-environment shape of
    each leaf, and defines ``step``. It overrides ``initial_state`` if its memory does not start at zero, and
    ``forward`` if it has a faster way to the same numbers (which may leave out ``since``).

    :param input_size: number of input features F
    :param output_size: number of output features O
    :param state: NamedTuple class of the state
    :param shapes: shape of each leaf of the state, without the batch dimension
    :raises ValueError: if a size is not a positive integer, or state and shapes do not go together
    """

    _like: Tensor

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if inspect.isfunction(cls.forward) and not _takes_since(cls.forward):
            cls.forward = _with_since(cls.forward)  # type: ignore[method-assign]

    def __init__(self, input_size: int, output_size: int, state: type, shapes: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        require_at_least(1, input_size=input_size, output_size=output_size)
        self.input_size = input_size
        self.output_size = output_size
        self._state_type = state
        names = getattr(state, "_fields", None)
        if names is None or len(names) != len(shapes) or not all(isinstance(shape, tuple) for shape in shapes):
            raise ValueError(
                f"{type(self).__name__} must give its state as a NamedTuple class and the shape of each leaf, without "
                f"the batch dimension, such as ((16,), (4, 8)); got {state!r} and {shapes!r}"
            )
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

    @full_precision
    def forward(self, x: Tensor, state: State, starts: Tensor, since: int = 0) -> tuple[Tensor, State]:
        """A sequence of steps: x [T, B, F], state, starts [T, B] -> (y [T, B, O], state after the last step).

        ``starts[t, b]`` is true where ``x[t, b]`` is the first observation of an episode (SB3's
        ``episode_starts``); the state of that row is then replaced by the initial one before the input is used.

        :param since: first step whose output is returned, counted from the end where negative: with -1, y is the
            output of the last step alone [1, B, O]. What is not asked for need not be computed
        :raises ValueError: if there is no such step
        """
        since = first_output(since, len(x))
        if len(x) == 1:  # as in a rollout: without a branch on data it can be exported, and no GPU is waited for
            y, state = self.step(x[0], self.reset(state, starts[0]))
            return y.unsqueeze(0), state
        outputs = []
        for x_t, starts_t, any_start in zip(x, starts, starts.any(dim=1).tolist(), strict=True):
            if any_start:
                state = self.reset(state, starts_t)
            y, state = self.step(x_t, state)
            outputs.append(y)
        return torch.stack(outputs[since:]), state

    def gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        """The gates that ``step`` would use, by name, each in (0, 1), for logs; a core without gates has none."""
        return {}

    def reset(self, state: State, starts: Tensor) -> State:
        """Replace the state by the initial one where starts [B] is true, by selection: a state that has overflowed
        does not leak, and an initial state may be anything."""
        starts = starts.bool()
        initial = self.initial_state(len(starts))
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


def _takes_since(forward: Callable) -> bool:
    try:
        inspect.signature(forward).bind("self", "x", "state", "starts", since=0)
    except TypeError:
        return False
    return True


def _with_since(forward: Callable) -> Callable:
    """``forward(self, x, state, starts)`` of a core that computes all outputs, whichever are asked for."""

    @functools.wraps(forward)
    def wrapper(self: MemoryCore, *args: Any, since: int = 0, **options: Any) -> tuple[Tensor, State]:
        y, state = forward(self, *args, **options)
        return y[first_output(since, len(y)) :], state

    del wrapper.__wrapped__  # its signature would be taken for this one's
    return wrapper


def reset_free_segments(starts: Tensor) -> list[tuple[int, int]]:
    """Cut [0, T) before every step at which any row of starts [T, B] begins an episode: [(begin, end), ...].

    Inside a segment nothing is reset, so a fused kernel may run it whole.
    """
    cuts = starts.any(dim=1).nonzero().flatten().tolist()
    bounds = sorted({0, *cuts, len(starts)})
    return list(itertools.pairwise(bounds))


def first_output(since: int, length: int) -> int:
    """``since`` counted from the start of a sequence; a ValueError if the sequence has no such step."""
    if not -length <= since < length:
        raise ValueError(f"since must be a step of the sequence, from {-length} to {length - 1}, got {since}")
    return since % length
