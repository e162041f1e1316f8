"""The memory of LM2 against its equations."""

import pytest
import torch
from naive.lm2 import naive_lm2_sequence
from small_cores import double, random_state

from relmem.agents import make_core


@pytest.mark.parametrize("options", [{}, {"slots": 1, "heads": 1}, {"slots": 9, "width": 4}], ids=str)
def test_it_is_what_its_equations_say_in_values_and_gradients(options):
    core = double("lm2", options)
    x = torch.randn(7, 3, core.input_size, dtype=torch.float64, requires_grad=True)
    starts, state = torch.rand(7, 3) < 0.2, random_state(core, 3)
    state.bank.requires_grad_()
    y, end = core(x, state, starts)
    expected, banks = naive_lm2_sequence(core, x, state, starts)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(end.bank, banks, rtol=0, atol=1e-9)
    weights, sources = torch.randn_like(y), [x, state.bank, *core.parameters()]
    got = torch.autograd.grad((y * weights).sum(), sources)
    for gradient, true in zip(got, torch.autograd.grad((expected * weights).sum(), sources), strict=True):
        torch.testing.assert_close(gradient, true, rtol=1e-9, atol=1e-9)


def test_slots_stay_different_and_bounded():
    core = make_core("lm2", 5, slots=4, width=8)
    with torch.no_grad():
        _, end = core(torch.randn(1000, 2, 5), core.initial_state(2), torch.zeros(1000, 2, dtype=torch.bool))
    assert torch.pdist(end.bank[0]).min() > 0.1
    assert end.bank.abs().max() < 100


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width must be a multiple of heads, 4, such as 12; got 11"):
        make_core("lm2", 3, width=11)
