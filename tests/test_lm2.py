"""The memory of LM2 against its equations."""

import pytest
import torch

from relmem.agents import make_core
from tests.naive.lm2 import naive_lm2_sequence
from tests.parity import assert_naive
from tests.small_cores import double, random_state


@pytest.mark.parametrize("options", [{}, {"slots": 1, "heads": 1}, {"slots": 9, "width": 4}], ids=str)
def test_it_is_what_its_equations_say_in_values_and_gradients(options):
    core = double("lm2", options)
    x = torch.randn(7, 3, core.input_size, dtype=torch.float64)
    assert_naive(core, naive_lm2_sequence, x, random_state(core, 3), torch.rand(7, 3) < 0.2)


def test_slots_stay_different_and_bounded():
    core = make_core("lm2", 5, slots=4, width=8)
    with torch.no_grad():
        _, end = core(torch.randn(1000, 2, 5), core.initial_state(2), torch.zeros(1000, 2, dtype=torch.bool))
    assert torch.pdist(end.bank[0]).min() > 0.1
    assert end.bank.abs().max() < 100


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads must divide width 11: 4 do not, 1 would"):
        make_core("lm2", 3, width=11)
