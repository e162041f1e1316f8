"""How many processors there are."""

from __future__ import annotations

import os


def available_processors() -> int:
    """How many processors this process may run on, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
