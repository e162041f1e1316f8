"""check_core: every core of ours passes, and each broken promise is named."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from relmem.agents import MemoryCore, check_core, make_core, registered_cores


class Sum(NamedTuple):
    total: torch.Tensor


class SumCore(MemoryCore):
    """Adds up its inputs; each subclass below breaks one promise."""

    def __init__(self, input_size=4, output_size=None):
        super().__init__(input_size, input_size, Sum, ((input_size,),))

    def step(self, x, state):
        total = state.total + x
        return total, Sum(total)


class Swapped(SumCore):
    def step(self, x, state):
        return super().step(x, state)[::-1]


class Alone(SumCore):
    def step(self, x, state):
        return super().step(x, state)[0]


class Wide(SumCore):
    def step(self, x, state):
        y, state = super().step(x, state)
        return torch.cat([y, y], dim=1), state


class Untyped(SumCore):
    def step(self, x, state):
        y, state = super().step(x, state)
        return y, tuple(state)


class Doubled(SumCore):
    def step(self, x, state):
        y, state = super().step(x, state)
        return y, Sum(state.total.double())


class InPlace(SumCore):
    def step(self, x, state):
        y, after = super().step(x, state)
        state.total.copy_(y)
        return y, after


class Remembering(SumCore):
    calls = 0

    def step(self, x, state):
        self.calls += 1
        y, state = super().step(x, state)
        return y + self.calls, state


class Mixing(SumCore):
    def step(self, x, state):
        return super().step(x - x.mean(dim=0), state)


class MixingLater(SumCore):
    def step(self, x, state):
        return super().step(x.cumsum(0), state)


class Detaching(SumCore):
    def step(self, x, state):
        return super().step(x, Sum(state.total.detach()))


class AllOrNone(SumCore):
    def forward(self, x, state, starts, since=0):
        return super().forward(x, state, starts.all(dim=1, keepdim=True).expand_as(starts), since)


class AnyIsAll(SumCore):
    def forward(self, x, state, starts, since=0):
        return super().forward(x, state, starts.any(dim=1, keepdim=True).expand_as(starts), since)


class Inexact(SumCore):
    def forward(self, x, state, starts, since=0):
        y, state = super().forward(x, state, starts, since)
        return 1.01 * y, state


class InexactSequence(SumCore):
    def sequence(self, x, state, starts, since):
        y, state = super().sequence(x, state, starts, since)
        return 1.01 * y, state


class Deaf(SumCore):
    def forward(self, x, state, starts, since=0):
        y, state = super().forward(x, state, starts)
        return y, state


class Leaking(SumCore):
    def reset(self, state, starts):
        return Sum(state.total * ~starts.view(-1, 1))


@pytest.mark.parametrize("name", registered_cores())
def test_our_cores_keep_the_contract(name):
    core = make_core(name, 6).train()
    check_core(core)
    assert core.training
    check_core(core.double())


@pytest.mark.parametrize(
    ("core", "sentence"),
    [
        (Swapped, "the output of step must be a tensor, got Sum"),
        (Alone, r"step must return \(output, next state\), got Tensor"),
        (Wide, r"the output of step must have the shape \[3, 4\], got \[3, 8\]"),
        (Untyped, "the next state of step must be a NamedTuple of total, got tuple"),
        (Doubled, "'total' of the next state of step must be of torch.float32, got torch.float64"),
        (InPlace, "step must not change the state that it is given"),
        (MixingLater, "rows of a batch must not mix"),
        (Detaching, "a core must not detach"),
        (AllOrNone, "forward must reset the rows that begin"),
        (AnyIsAll, "forward must reset the rows that begin"),
        (Remembering, "step must be pure"),
        (Mixing, "rows of a batch must not mix"),
        (Inexact, "forward must return what a loop over step does"),
        (InexactSequence, "forward must return what a loop over step does"),
        (Deaf, "with since=-1, forward must return the last output alone"),
        (Leaking, "an episode must begin with the initial state"),
    ],
)
def test_a_broken_promise_is_named(core, sentence):
    check_core(SumCore())
    with pytest.raises(ValueError, match=sentence):
        check_core(core())


def test_a_state_that_is_not_described_is_refused_at_once():
    for state, shapes in ((tuple, ((4,),)), (Sum, ((4,), (4,))), (Sum, (4,))):
        with pytest.raises(ValueError, match="must give its state as a NamedTuple class and the shape of each leaf"):
            MemoryCore(4, 4, state, shapes)
    with pytest.raises(NotImplementedError, match=r"MemoryCore must define step\(x, state\)"):
        MemoryCore(4, 4, Sum, ((4,),)).step(torch.zeros(1, 4), None)
    assert isinstance(SumCore(), nn.Module)
