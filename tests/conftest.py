"""Set-up shared by all tests."""

import signal

import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Every test draws the same numbers, whichever tests ran before it."""
    torch.manual_seed(0)


# A process that a script starts in the background is deaf to Ctrl-C, and so would be the runs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
