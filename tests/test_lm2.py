"""The memory of LM2: what it can do; its naive version is in test_windows.py."""

import pytest
import torch

from relmem.agents import make_core


def test_slots_stay_different_and_bounded():
    core = make_core("lm2", 5, slots=4, hidden_size=8)
    with torch.no_grad():
        _, end = core(torch.randn(1000, 2, 5), core.initial_state(2), torch.zeros(1000, 2, dtype=torch.bool))
    assert torch.pdist(end.bank[0]).min() > 0.1
    assert end.bank.abs().max() < 100


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads must divide hidden_size 11: 4 do not, 1 would"):
        make_core("lm2", 3, hidden_size=11)
