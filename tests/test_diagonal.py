"""Diagonal scans: parity with the naive versions, long sequences, and how each begins."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relmem.agents import make_core
from relmem.agents.cores.mamba import initial_step_sizes
from tests.naive import diagonal
from tests.naive.rows import by_rows
from tests.parity import assert_naive, assert_same, moved
from tests.small_cores import double, loop_of_steps, random_state

SIZES = {
    "lru": [{"hidden_size": 5}],
    "rg_lru": [{"hidden_size": 5, "conv_size": size} for size in (1, 4)],
    "ffm": [{"hidden_size": 5, "memory_size": 3, "context_size": 2, "max_period": 20}],
    "mamba": [{"hidden_size": 5, "memory_size": 3, "conv_size": size, "rank": 2} for size in (1, 4)],
    "mamba2": [{"hidden_size": 6, "key_size": 3, "heads": heads} for heads in (1, 3)],
}
CASES = [(name, options) for name, choices in SIZES.items() for options in choices]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@settings(max_examples=8)
@given(st.integers(1, 6), st.integers(1, 3), st.sampled_from([0.0, 0.4, 1.0]), st.integers(0, 99))
def test_values_and_gradients_match_the_naive_version(name, options, steps, batch, p, seed):
    torch.manual_seed(seed)
    core = moved(name, 4, (None, 3)[seed % 2], **options)
    x, starts = torch.randn(steps, batch, 4, dtype=torch.float64), torch.rand(steps, batch) < p
    assert_naive(core, partial(by_rows, getattr(diagonal, name)), x, random_state(core, batch), starts)


@pytest.mark.parametrize("name", [*SIZES, "min_gru", "min_lstm"])
@pytest.mark.parametrize("T", [1, 63, 64, 65, 300])
def test_long_sequences_are_loops_of_steps(name, T):
    core = double(name)
    x, starts = torch.randn(T, 2, core.input_size, dtype=torch.float64, requires_grad=True), torch.rand(T, 2) < 0.02
    state = random_state(core, 2)
    (y, end), (expected, expected_end) = core(x, state, starts), loop_of_steps(core, x, state, starts)
    assert_same([y, *end], [expected, *expected_end], [x, *core.parameters()], tolerance=1e-8)


@pytest.mark.parametrize("starts", [0.0, 0.2])
def test_both_ways_through_mamba_are_the_same(starts):
    """The loop, as on CPUs, and the scan, as on GPUs."""
    core = double("mamba")
    u, memory = torch.randn(70, 2, 8, dtype=torch.float64), random_state(core, 2).memory
    selection, starts = core._selection(u), torch.rand(70, 2) < starts
    for one, other in zip(
        core._at_once(selection, memory, starts), core._one_by_one(selection, memory, starts), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_an_lru_begins_on_its_ring_and_keeps_the_size_of_its_inputs():
    core = make_core("lru", 4, hidden_size=2000, r_min=0.5, r_max=0.8, max_phase=0.3)
    decay = core._decay()
    assert (decay.abs() > 0.5 - 1e-4).all()
    assert (decay.abs() < 0.8 + 1e-4).all()
    assert (decay.angle() <= 0.3 + 1e-4).all()
    torch.testing.assert_close(decay.abs().square().mean().item(), (0.25 + 0.64) / 2, atol=0.02, rtol=0)
    x = torch.randn(40, 200, 4)
    _, end = core(x, core.initial_state(200), torch.zeros(40, 200, dtype=torch.bool))
    power = (end.real.square() + end.imaginary.square()).mean().item()
    torch.testing.assert_close(power, 1.0, atol=0.1, rtol=0)


def test_an_empty_ring_is_refused():
    with pytest.raises(ValueError, match=r"r_min must be below r_max 0.5, got 0.9"):
        make_core("lru", 4, r_max=0.5)


def test_the_start_of_an_lru_is_finite_at_the_edges_of_its_options(monkeypatch):
    monkeypatch.setattr(torch, "rand", torch.zeros)
    core = make_core("lru", 4, r_min=0.9999999, r_max=1.0)
    assert all(parameter.isfinite().all() for parameter in core.parameters())


def test_an_rg_lru_whose_recurrence_gate_is_shut_holds_what_it_has():
    core = make_core("rg_lru", 4, hidden_size=5)
    with torch.no_grad():
        core.gate_map.bias[:5] = -200.0
    state = random_state(core, 3)
    _, end = core(torch.randn(50, 3, 4), state, torch.zeros(50, 3, dtype=torch.bool))
    torch.testing.assert_close(end.hidden, state.hidden, atol=1e-4, rtol=0)


def test_an_rg_lru_begins_with_the_decays_of_the_paper():
    core = make_core("rg_lru", 4, hidden_size=2000)
    decay = torch.exp(-8 * torch.nn.functional.softplus(core.Lambda))
    assert (decay > 0.9 - 1e-4).all()
    assert (decay < 0.999 + 1e-4).all()
    torch.testing.assert_close(decay.mean().item(), (0.9 + 0.999) / 2, atol=3e-3, rtol=0)


def test_step_sizes_of_mamba_begin_log_uniform():
    sizes = torch.nn.functional.softplus(initial_step_sizes(4000)).log()
    assert sizes.min() > math.log(0.001) - 0.01
    assert sizes.max() < math.log(0.1) + 0.01
    torch.testing.assert_close(sizes.mean().item(), math.log(0.01), atol=0.1, rtol=0)


def test_traces_of_an_ffm_fade_to_a_hundredth_within_their_periods():
    core = make_core("ffm", 4, memory_size=8, max_period=50)
    radius = core._decay().abs()[:, 0]
    torch.testing.assert_close(radius[0] ** 7, torch.tensor(0.01), rtol=1e-4, atol=0)
    torch.testing.assert_close(radius[-1] ** 50, torch.tensor(0.01), rtol=1e-4, atol=0)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="heads must divide hidden_size 10: 4 do not, 5 would"):
        make_core("mamba2", 4, hidden_size=10, heads=4)
