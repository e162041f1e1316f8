"""The random generators of a process."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def generators() -> dict[str, Any]:
    """The states of all generators that this process draws from."""
    version, numbers, spare = random.getstate()
    return {
        "python": (version, np.array(numbers), spare),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
    }


def set_generators(states: dict[str, Any]) -> None:
    """Let this process draw what the one would have drawn, of which these are the ``generators``."""
    version, numbers, spare = states["python"]
    random.setstate((version, tuple(numbers.tolist()), spare))
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
