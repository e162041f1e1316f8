"""Set-up shared by all tests."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Every test draws the same numbers, whichever tests ran before it."""
    torch.manual_seed(0)
