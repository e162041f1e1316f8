"""Whether a core keeps the promises of the contract: for the tests of a core of your own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import MemoryCore, State

T, B = 5, 3
TOLERANCE = 1e-4  # of the largest number of a tensor: another order of the same sums changes float32 by less


@torch.no_grad()
def check_core(core: MemoryCore) -> None:
    """Try a core on random inputs.

    It is checked that states and outputs have the shapes and the dtype that they should have, that ``step`` is pure,
    that the rows of a batch do not mix, that an episode which begins within a sequence knows nothing of what was before
    it, and that ``forward`` returns the numbers of a loop over ``step``.

    :raises ValueError: naming the first of these that does not hold
    """
    training = core.training
    core.eval()
    try:
        _check(core)
    finally:
        core.train(training)


def _check(core: MemoryCore) -> None:
    x = torch.randn(T, B, core.input_size, dtype=core.dtype, device=core._like.device)
    none = torch.zeros(T, B, dtype=torch.bool, device=x.device)

    initial = core.initial_state(B)
    _require_state(core, "initial_state(3)", initial)
    result = core.step(x[0], initial)
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(f"step must return (output, next state), got {type(result).__name__}")
    y, after = result
    _require_tensor("the output of step", y, (B, core.output_size), core.dtype)
    _require_state(core, "the next state of step", after)
    before = [leaf.clone() for leaf in initial]
    _require_equal("step must be pure: the same call twice", core.step(x[0], initial), result)
    _require_equal("step must not change the state that it is given", initial, before)

    outputs, state = [], initial
    for x_t in x:
        y, state = core.step(x_t, state)
        outputs.append(y)
    whole = core(x, initial, none)
    _require_equal("forward must return what a loop over step does", whole, (torch.stack(outputs), state))
    last = core(x, initial, none, since=-1)
    _require_equal("with since=-1, forward must return the last output alone", last, (whole[0][-1:], state))

    others = torch.cat([x[:, :1], torch.randn_like(x[:, 1:])], dim=1)
    _require_equal("rows of a batch must not mix", core(others, initial, none)[0][:, 0], whole[0][:, 0])

    starts = none.clone()
    starts[2] = True
    ruined = type(initial)(*(torch.full_like(leaf, torch.nan) for leaf in initial))
    late, fresh = core(x, ruined, starts, since=2), core(x[2:], initial, none[2:])
    _require_equal("an episode must begin with the initial state, whatever was before it", late, fresh)


def _require_tensor(what: str, value: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must be a tensor, got {type(value).__name__}")
    if tuple(value.shape) != shape:
        raise ValueError(f"{what} must have the shape {list(shape)}, got {list(value.shape)}")
    if value.dtype != dtype:
        raise ValueError(f"{what} must be of {dtype}, got {value.dtype}")


def _require_state(core: MemoryCore, what: str, state: State) -> None:
    if getattr(state, "_fields", None) != tuple(core.state_spec):
        raise ValueError(f"{what} must be a NamedTuple of {', '.join(core.state_spec)}, got {type(state).__name__}")
    for (name, shape), leaf in zip(core.state_spec.items(), state, strict=True):
        _require_tensor(f"'{name}' of {what}", leaf, (B, *shape), core.dtype)


def _require_equal(promise: str, got: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        scale = expected.abs().max().clamp(min=1.0)
        if got.shape != expected.shape or not ((got - expected).abs().max() <= TOLERANCE * scale):
            raise ValueError(promise)
    else:
        for one, other in zip(got, expected, strict=True):
            _require_equal(promise, one, other)
