"""``relmem cores``: the memory cores that there are, their sizes and what a step of them costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..agents.cores import MemoryCore, make_core, registered_cores
from ..agents.cores.registry import CORES
from ..common.columns import columns
from ..common.output import stage
from .arguments import Arguments
from .listing import listing, summary

INPUT_SIZE, BATCH, CALLS = 256, 16, 5
EXAMPLES = ["relmem cores", "relmem cores lstm delta", "relmem cores --json"]


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check the command line after ``relmem cores``.

    :raises ValueError: if it asks for something impossible
    """
    about = (
        f"The registered cores at their defaults, for {INPUT_SIZE} input features: parameters, numbers in the state of "
        f"one sequence, and what a step of one sequence takes here, of {BATCH} together on one thread."
    )
    names = sorted(registered_cores())
    return listing(Arguments("cores", about, EXAMPLES), argv, "core", lambda: names, facts, table)


def table(found: list[dict[str, Any]]) -> str:
    rows = [
        [core["name"], f"{core['parameters']:,}", f"{core['state']:,}", f"{core['microseconds']:,.0f}", core["about"]]
        for core in found
    ]
    text = columns(("core", "parameters", "state", "μs/step", "what it is"), rows)
    return f"{text}\n\nOptions of one: relmem train --core.name NAME --env.id CartPole-v1 --help"


def facts(name: str) -> dict[str, Any]:
    """What there is to know of a core at its defaults."""
    core = make_core(name, INPUT_SIZE)
    with stage(f"measuring steps of {name}"):
        microseconds = round(1e6 * seconds_per_step(core), 2)
    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in core.parameters()),
        "state": core.state_size,
        "microseconds": microseconds,
        "about": summary(CORES.factory(name).__doc__ or ""),
    }


def seconds_per_step(core: MemoryCore) -> float:
    """Median of several calls, of one sequence among several."""
    x, state, seconds = torch.randn(BATCH, INPUT_SIZE), core.initial_state(BATCH), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for _ in range(1 + CALLS):  # the first warms up
                began = time.perf_counter()
                core.step(x, state)
                seconds.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(seconds[1:]) / BATCH
