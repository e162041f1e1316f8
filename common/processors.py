"""How many processors there are, and how long they have worked."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from pathlib import Path


def available_processors() -> int:
    """How many processors this process may run on, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_seconds() -> float:
    """How long processors have worked for this process and the processes that it started: those that have ended and,
    where the system tells, those that `multiprocessing` runs for it now."""
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in multiprocessing.active_children():
        with suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # user and system
    return total
