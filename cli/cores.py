"""``relmem cores``: the memory cores that there are, their sizes and what a step of them costs."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..agents.cores import MemoryCore, make_core, registered_cores
from ..agents.cores.registry import CORES
from ..common.columns import columns
from ..common.output import say, stage
from .arguments import Arguments
from .names import chosen, summary

INPUT_SIZE, BATCH, CALLS = 256, 16, 5
HEADS = ("core", "parameters", "state", "μs/step", "what it is")


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check the command line after ``relmem cores``.

    :raises ValueError: if it asks for something impossible
    """
    parser = Arguments(
        "cores",
        f"The registered cores at their defaults, for {INPUT_SIZE} input features: parameters, numbers in the state of "
        f"one sequence, and what a step of one sequence takes here, of {BATCH} together on one thread.",
        ["relmem cores", "relmem cores lstm delta", "relmem cores --json"],
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a core, or a part of names; default: all")
    parser.add_argument("--json", action="store_true", help="for scripts")
    args = parser.read(argv)
    names = chosen("core", args.names, sorted(registered_cores()))
    return lambda: show(names, args.json)


def show(names: Sequence[str], as_json: bool) -> int:
    with stage("measuring steps"):
        found = [facts(name) for name in names]
    if as_json:
        say(json.dumps(found, indent=1))
        return 0
    rows = [
        [core["name"], f"{core['parameters']:,}", f"{core['state']:,}", f"{core['microseconds']:,.0f}", core["about"]]
        for core in found
    ]
    say(columns(HEADS, rows) + "\n\nOptions of one: relmem train --core.name NAME --env.id CartPole-v1 --help")
    return 0


def facts(name: str) -> dict[str, Any]:
    """What there is to know of a core at its defaults."""
    core = make_core(name, INPUT_SIZE)
    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in core.parameters()),
        "state": core.state_size,
        "microseconds": round(1e6 * seconds_per_step(core), 2),
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
