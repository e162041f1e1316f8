"""Whether a core keeps the promises of the contract: for the tests of a core of your own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .core import MemoryCore, State
from .scan import loop

T, B = 6, 3


def check_core(core: MemoryCore) -> None:
    """Try a core on random inputs.

    It is checked that states and outputs have the shapes and the dtype that they should have, that ``step`` is pure,
    that the rows of a batch do not mix, that ``forward`` returns the numbers of a loop over ``step`` wherever episodes
    begin, that an episode knows nothing of what was before it, and that gradients reach as far back as memory does.

    :raises ValueError: naming the first of these that does not hold
    """
    training = core.training
    core.eval()
    try:
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            _check(core)
        with torch.backends.cudnn.flags(enabled=False):  # whose recurrences have no gradients in evaluation mode
            _check_gradients(core)
    finally:
        core.train(training)


def _check(core: MemoryCore) -> None:
    x, none = _inputs(core), torch.zeros(T, B, dtype=torch.bool, device=core._like.device)
    initial = core.initial_state(B)
    _require_state(core, "initial_state(3)", initial)

    before = [leaf.clone() for leaf in initial]
    result = core.step(x[0], initial)
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(f"step must return (output, next state), got {type(result).__name__}")
    _require_tensor("the output of step", result[0], (B, core.output_size), core.dtype)
    _require_state(core, "the next state of step", result[1])
    _require_equal("step must not change the state that it is given", initial, before)
    _require_equal("step must be pure: the same call twice", core.step(x[0], initial), result)

    starts = none.clone()
    for promise in ("forward must return what a loop over step does", "forward must reset the rows that begin"):
        outputs, end = loop(core.step, core.reset, x, initial, starts)
        y = torch.stack(outputs)
        _require_equal(promise, core(x, initial, starts), (y, end))
        last = core(x, initial, starts, since=-1)
        _require_equal("with since=-1, forward must return the last output alone", last, (y[-1:], end))
        starts[2, 0] = starts[4, 0] = starts[3, 1] = True  # and the last row goes on

    others = x.clone()
    others[:, 1] = torch.randn_like(others[:, 1])
    (y, end), (y_others, end_others) = core(x, initial, none), core(others, initial, none)
    for row in (0, 2):
        alone = [leaf[row] for leaf in end], [leaf[row] for leaf in end_others]
        _require_equal("rows of a batch must not mix", (y_others[:, row], *alone[1]), (y[:, row], *alone[0]))

    begin = none.clone()
    begin[2] = True
    ruined = type(initial)(*(torch.full_like(leaf, torch.nan) for leaf in initial))
    late, fresh = core(x, ruined, begin, since=2), core(x[2:], initial, none[2:])
    _require_equal("an episode must begin with the initial state, whatever was before it", late, fresh)


def _check_gradients(core: MemoryCore) -> None:
    """Where the first input has a say in the last output, there is a gradient of it."""
    x, none = _inputs(core).requires_grad_(), torch.zeros(T, B, dtype=torch.bool, device=core._like.device)
    last = core(x, core.initial_state(B), none, since=-1)[0]
    with torch.no_grad():
        other = core(torch.cat([x[:1] + 1, x[1:]]), core.initial_state(B), none, since=-1)[0]
    weighted = (last * torch.randn_like(last)).sum()  # the plain sum of normalised outputs may be constant
    gradient = torch.autograd.grad(weighted, x, allow_unused=True)[0] if last.requires_grad else None
    if not torch.equal(last, other) and (gradient is None or not gradient[0].any()):
        raise ValueError("a core must not detach: the first input changes the last output, but gets no gradient")


def _inputs(core: MemoryCore) -> Tensor:
    return torch.randn(T, B, core.input_size, dtype=core.dtype, device=core._like.device)


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
        # Another order of the same sums changes less than half of the digits.
        tolerance = torch.finfo(expected.dtype).eps ** 0.5 * expected.abs().max().clamp(min=1.0)
        if got.shape != expected.shape or not (got - expected).abs().max() <= tolerance:
            raise ValueError(promise)
    else:
        for one, other in zip(got, expected, strict=True):
            _require_equal(promise, one, other)
