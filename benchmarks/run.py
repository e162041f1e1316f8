"""Every benchmark, side by side, and a table of what was aimed at and what came out.

python -m benchmarks.run                   # all, into results/bench
python -m benchmarks.run --quick           # a smoke run: do they still run? Its figures mean nothing
python -m benchmarks.run --only stm rmc    # some groups, printed only
python -m benchmarks.run --before ../old   # this tree beside another checkout, printed only
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import a3c, cores, features, ppo, rmc, scale, stm, trees
from benchmarks.measure import ROOT, Group, Table, Target, number
from relmem.experiment.provenance import PACKAGES, commit, processor

GROUPS: dict[str, Callable[[bool, int], Group]] = {
    "stm": stm.measure,
    "rmc": rmc.measure,
    "cores": cores.measure,
    "features": features.measure,
    "ppo": ppo.measure,
    "a3c": a3c.measure,
    "scale": scale.measure,
}
READING = (
    "A figure is the median over rounds, each of which runs all contestants in turn; in brackets stand the lowest and "
    "the highest. A ratio is taken round by round."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small shapes, one round")
    parser.add_argument("--rounds", type=int, default=5, help="of measurements that count")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP", help=str([*GROUPS]))
    parser.add_argument("--out", type=Path, help="folder of the results; default: results/bench for a whole run")
    parser.add_argument(
        "--before", type=Path, help="another checkout, beside which this one is timed, and nothing else"
    )
    args = parser.parse_args()

    begin = time.perf_counter()
    about = conditions()
    groups = {}
    if args.before is not None:
        groups["trees"] = trees.measure(args.before.resolve(), args.quick, 1 if args.quick else args.rounds)
        args.only = []
    for name in args.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        groups[name] = GROUPS[name](args.quick, 1 if args.quick else args.rounds)
    about["seconds"] = round(time.perf_counter() - begin)
    report = markdown(list(groups.values()), about, args.quick)
    print(report)
    whole = not args.quick and args.only == list(GROUPS)
    out = args.out or (ROOT / "results" / "bench" if whole else None)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        found = {"conditions": about} | {name: dataclasses.asdict(group) for name, group in groups.items()}
        (out / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
        (out / "bench.md").write_text(report)


def conditions() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "commit": commit() or "unknown",
        "command": shlex.join(["python", "-m", "benchmarks.run", *sys.argv[1:]]),
    }


def markdown(groups: Sequence[Group], about: dict[str, Any], quick: bool) -> str:
    """The report: what was aimed at first, then each table."""
    facts = ", ".join(f"{key} {value}" for key, value in about.items() if key != "command")
    parts = ["# Benchmarks", f"`{about['command']}`: {facts}.", READING]
    if quick:
        parts.append("**A smoke run: its figures mean nothing.**")
    targets = [target_row(target) for group in groups for target in group.targets]
    tables = [Table("Targets", "", targets), *(table for group in groups for table in group.tables)]
    for table in tables:
        if table.rows:
            lines = [table.rows[0], ["---"] * len(table.rows[0]), *(row.values() for row in table.rows)]
            parts += [f"## {table.title}", table.note, "\n".join(map(table_line, lines))]
    return "\n\n".join(part for part in parts if part) + "\n"


def target_row(target: Target) -> dict[str, Any]:
    if target.ratio is None:
        verdict = "not measured"
    elif target.ratio.median >= target.least:
        verdict = "stretch" if target.ratio.median >= target.stretch else "met"
    else:
        verdict = f"missed by {1 - target.ratio.median / target.least:.0%}"
    return {
        "measured": target.name,
        "at least": target.least,
        "stretch": target.stretch,
        "ratio": target.ratio,
        "verdict": verdict,
    }


def table_line(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(number(cell) if isinstance(cell, float | int) else str(cell) for cell in cells) + " |"


if __name__ == "__main__":
    main()
