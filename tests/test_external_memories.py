"""NTM and DNC: what their equations say, and what their memories can do."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relmem.agents import make_core
from relmem.agents.cores.dnc import allocation
from relmem.agents.cores.ntm import Address, address
from tests.naive.external import naive_dnc, naive_ntm
from tests.naive.rows import by_rows
from tests.parity import assert_core_is

STEPS = {"dnc": naive_dnc, "ntm": naive_ntm}


@pytest.mark.parametrize("name", STEPS)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_values_and_gradients_match_the_naive_version(name, data):
    names = ("controller_size", "cell_size", "read_heads")
    sizes = {size: data.draw(st.integers(1, 4), size) for size in names}
    if name == "ntm":
        sizes["largest_shift"] = data.draw(st.integers(1, 2), "largest_shift")
    sizes["cells"] = data.draw(st.integers(2 * sizes.get("largest_shift", 0) + 1, 6), "cells")
    naive = partial(by_rows, STEPS[name])
    # Weights and usages lie between 0 and 1.
    assert_core_is(naive, name, seed=data.draw(st.integers(0, 999), "seed"), state_of=torch.rand, **sizes)


def test_allocation_goes_to_the_least_used_cell():
    usage = torch.tensor([[0.5, 0.0, 1.0, 0.25], [1.0, 1.0, 1.0, 1.0]])
    expected = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(allocation(usage), expected, rtol=0, atol=1e-5)
    half = allocation(torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(half, torch.tensor([[0.5, 0.25]]), rtol=0, atol=1e-5)


def test_a_head_that_does_not_look_at_contents_moves_around_the_ring():
    memory, last = torch.randn(1, 5, 3), torch.eye(5)[4].view(1, 1, 5)
    forward = Address(torch.zeros(1, 1, 3), torch.ones(1, 1), torch.zeros(1, 1), torch.eye(3)[2], torch.ones(1, 1))
    forward = forward._replace(shift=torch.eye(3)[2].view(1, 1, 3))
    torch.testing.assert_close(address(forward, memory, last), torch.eye(5)[0].view(1, 1, 5))


@pytest.mark.parametrize("name", STEPS)
def test_weights_stay_weights(name):
    """After many random steps weights lie between 0 and 1 and sum to no more than 1, and nothing has grown."""
    torch.manual_seed(0)
    core = make_core(name, 4, controller_size=8, cells=6, cell_size=4)
    x, starts = 3 * torch.randn(1000, 2, 4), torch.zeros(1000, 2, dtype=torch.bool)
    with torch.no_grad():
        y, end = core(x, core.initial_state(2), starts)
    assert y.abs().max() < 100
    for weights in (end.read_weights, end.write_weights):
        assert (weights >= 0).all() and (weights.sum(-1) <= 1 + 1e-4).all()
    if name == "dnc":
        assert ((end.usage >= 0) & (end.usage <= 1 + 1e-5)).all()
        assert end.link.diagonal(dim1=1, dim2=2).abs().max() == 0


def test_the_write_gate_of_a_dnc_says_how_much_is_written():
    core, x = make_core("dnc", 4, controller_size=8, cells=6, cell_size=4), torch.randn(5, 4)
    state = core.initial_state(5)
    gates, (_, after) = core.gates(x, state), core.step(x, state)
    by_content = torch.full((5, 6), 1 / 6)  # of an empty memory
    allocate = gates["allocation_gate"]
    expected = gates["write_gate"] * (allocate * allocation(state.usage) + (1 - allocate) * by_content)
    torch.testing.assert_close(after.write_weights, expected)


def test_shifts_that_go_around_the_ring_are_refused():
    with pytest.raises(ValueError, match="cells must be at least 5 for shifts of up to 2 to either side, got 4"):
        make_core("ntm", 4, cells=4, largest_shift=2)
