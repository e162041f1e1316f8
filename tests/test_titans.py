"""The memory of Titans: what its equations say, and what it can do."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relmem.agents import make_core
from relmem.agents.cores.titans import Projection
from tests.naive.rows import by_rows
from tests.naive.titans import naive_titans
from tests.parity import assert_core_is


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_values_and_gradients_match_the_naive_version(data):
    sizes = {size: data.draw(st.integers(1, 4), size) for size in ("memory_size", "hidden_size")}
    options = {
        "largest_surprise": data.draw(st.sampled_from([None, 0.5, 1.0]), "largest_surprise"),
        "forget_to": data.draw(st.sampled_from(["initial", "zero"]), "forget_to"),
    }
    naive, seed = partial(by_rows, naive_titans), data.draw(st.integers(0, 999), "seed")
    # States as they come, since far from them a descent without a limit diverges.
    small = lambda *shape, dtype: 0.5 * torch.randn(*shape, dtype=dtype)  # noqa: E731
    assert_core_is(naive, "titans", steps=4, seed=seed, state_of=small, tolerance=1e-8, **sizes, **options)


def test_it_learns_what_it_is_shown():
    torch.manual_seed(0)
    core = make_core("titans", 4, memory_size=8, hidden_size=16)
    key, value = torch.nn.functional.normalize(torch.randn(3, 8), dim=1), torch.randn(3, 8)
    one, none, state = torch.ones(1, 1), torch.zeros(1, 1), core.initial_state(1)
    with torch.no_grad():
        errors = []
        for step in range(300):
            k, v = key[step % 3].unsqueeze(0), value[step % 3].unsqueeze(0)
            y, state = core._update(Projection(k, k, v, 0.5 * one, 0.5 * one, none), state)
            errors.append((y - v).square().mean().item())
    assert max(errors[-3:]) < 0.01 * max(errors[:3])


@pytest.mark.parametrize("forget_to", ["initial", "zero"])
def test_a_memory_that_decays_to_zero_is_lost_for_good(forget_to):
    torch.manual_seed(0)
    core = make_core("titans", 8, memory_size=8, hidden_size=8, forget_to=forget_to)
    x, starts = torch.randn(300, 1, 8), torch.zeros(300, 1, dtype=torch.bool)
    with torch.no_grad():
        core.gates_of_input.bias[2] = 2.0  # forgets fast
        y, _ = core(x, core.initial_state(1), starts, since=-100)
    assert bool(y.abs().max() < 1e-6) == (forget_to == "zero")
    assert y.isfinite().all()
