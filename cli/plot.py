"""``relmem plot``: runs in one picture, with a table beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..common.columns import columns
from ..common.files import require_new
from ..common.output import say, stage, warn
from ..experiment.compare import Comparison, Trained, compare, find_runs
from ..experiment.pictures import SCALES
from ..experiment.report import Report
from .arguments import Arguments

ENDINGS = (".png", ".svg", ".pdf")


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check the command line after ``relmem plot``, and read the runs.

    :raises ValueError: if it asks for something impossible
    """
    parser = Arguments(
        "plot",
        "Draw the learning curves of runs in one picture, a line for all seeds of one kind: their mean, in the band of "
        "their range. What the runs reached is printed, and written beside the picture. Over several tasks there are "
        "interquartile means too, with bootstrap intervals.",
        ["relmem plot runs/cores", "relmem plot runs/* --by core --x minutes", "relmem plot a b --out both.svg"],
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or of several")
    parser.add_argument(
        "--by", nargs="+", default=[], metavar="OPTION",
        help="options that make a line of their own, such as core or algo.gamma; default: all that differ",
    )  # fmt: skip
    parser.add_argument("--x", choices=list(SCALES), default="steps", help="steps (of a task: updates) or other")
    parser.add_argument("--out", type=Path, default=Path("plot.png"), metavar="FILE", help="the picture (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the table for scripts")
    args = parser.read(argv)
    if args.out.suffix not in ENDINGS:
        raise ValueError(f"--out must end in {', '.join(ENDINGS)}, got '{args.out}'")
    for file in (args.out, args.out.with_suffix(".md")):
        require_new(file)
    runs, left_out = find_runs(args.runs)
    comparison = compare(drawable(runs, args.x, left_out), args.by)
    return lambda: show(comparison, left_out, args.x, args.out, args.json)


def drawable(runs: Sequence[Trained], x: str, left_out: dict[Path, str]) -> list[Trained]:
    """The runs that can be drawn against ``x``; the others are added to those that are left out.

    :raises ValueError: if there are none
    """
    untimed = [run.folder for run in runs if x == "minutes" and not np.isfinite(run.curve.minutes).all()]
    left_out |= dict.fromkeys(untimed, "its episodes have no times")
    kept = [run for run in runs if run.folder not in untimed]
    if not kept:
        reasons = "; ".join(f"{folder}: {why}" for folder, why in left_out.items())
        raise ValueError(f"there is nothing to draw yet ({reasons})")
    return kept


def show(comparison: Comparison, left_out: Mapping[Path, str], x: str, picture: Path, as_json: bool = False) -> int:
    """Draw the picture, write the tables beside it, and print them."""
    for folder, why in left_out.items():
        warn(f"{folder} is left out: {why}")
    with stage("drawing"):
        report = Report.of(comparison)
        try:
            report.write(picture, x)
        except OSError as error:  # of a disk that is full, say
            warn(str(error))
            return 1
    for row in report.without_mean:
        warn(f"'{row}' has no run on some tasks: it has no mean over tasks")
    if as_json:
        files = {"picture": str(picture), "table": str(picture.with_suffix(".md"))}
        say(json.dumps(report.as_data() | {"left_out": {str(k): why for k, why in left_out.items()}} | files, indent=1))
        return 0
    for title, (heads, *rows) in report.tables.items():
        say(f"\n{title}\n\n{columns(heads, rows)}")
    say(f"\nWrote {picture} and {picture.with_suffix('.md').name}.")
    return 0
