"""``relmem plot``: runs in one picture, with a table beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..common.columns import columns, markdown
from ..common.files import replacing
from ..common.output import say, stage, warn
from ..experiment.compare import (
    Comparison,
    Interval,
    Trained,
    compare,
    find_runs,
    interquartile_means,
    normalised,
    spread,
)
from ..experiment.pictures import SCALES, Panel, draw_panels
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
    require_free(args.out)
    runs, left_out = find_runs(args.runs)
    comparison = compare(drawable(runs, args.x, left_out), args.by)
    return lambda: show(comparison, left_out, args.x, args.out, args.json)


def require_free(picture: Path) -> None:
    """Pictures are not overwritten.

    :raises ValueError: if there is one, or it cannot be written
    """
    if picture.suffix not in ENDINGS:
        raise ValueError(f"--out must end in {', '.join(ENDINGS)}, got '{picture}'")
    if not picture.parent.is_dir():
        raise ValueError(f"there is no folder '{picture.parent}' to write {picture.name} to")
    for file in (picture, picture.with_suffix(".md")):
        if file.exists():
            raise ValueError(f"'{file}' exists: choose another --out, or remove it")


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
        draw_panels(picture, panels(comparison, x), "")
    means = over_tasks(comparison)
    sections = [(task, lines(rows)) for task, rows in comparison.tables.items()]
    if means:
        heads = ["", "interquartile mean (95 % interval)", "runs on each task"]
        over = [[row, str(interval), str(seeds)] for row, (interval, seeds) in means.items()]
        sections.append((f"All {len(comparison.tables)} tasks, scores from 0 (worst run) to 1 (best)", [heads, *over]))
    with replacing(picture.with_suffix(".md")) as file:
        parts = [
            f"![Learning curves]({picture.name})",
            *(f"## {title}\n\n{markdown(table)}" for title, table in sections),
        ]
        file.write(("\n\n".join(parts) + "\n").encode())
    if as_json:
        say(json.dumps(as_data(comparison, left_out, means, picture), indent=1))
        return 0
    for title, (heads, *rows) in sections:
        say(f"\n{title}\n\n{columns(heads, rows)}")
    say(f"\nWrote {picture} and {picture.with_suffix('.md').name}.")
    return 0


def panels(comparison: Comparison, x: str) -> list[Panel]:
    """A panel for each task."""
    found = []
    for task, rows in comparison.tables.items():
        first = next(iter(rows.values()))[0]
        label = {"steps": first.unit, "minutes": "minutes", "frames": "million frames"}[x]
        curves = {row: [run.curve for run in runs] for row, runs in rows.items()}
        found.append(Panel(curves, x, label, first.metric, task))
    return found


def lines(rows: Mapping[str, Sequence[Trained]]) -> list[list[str]]:
    """What the runs on one task reached: mean and range over seeds."""
    first = next(iter(rows.values()))[0]
    agent = "env.id" in first.config
    heads = ["", "seeds", first.metric if agent else f"best validation {first.metric}"]
    heads += ["final evaluation" if agent else "test", first.unit, "minutes"]
    small = all(abs(run.final) < 10 for runs in rows.values() for run in runs)
    form = ".3g" if not agent else "z.2f" if small else "z.1f"
    table = [heads]
    for row, runs in rows.items():
        ends = [run.curve for run in runs]
        minutes = [None if math.isnan(end.minutes[-1]) else float(end.minutes[-1]) for end in ends]
        ended = spread([float(end.steps[-1]) for end in ends], ",.0f"), spread(minutes, ".1f")
        scores = spread([run.final for run in runs], form), spread([run.tested for run in runs], form)
        table.append([row, str(len(runs)), *scores, *ended])
    return table


def over_tasks(comparison: Comparison) -> dict[str, tuple[Interval, int]]:
    """The interquartile mean of each row that was trained on every task, and its runs on each; none of one task."""
    if len(comparison.tables) < 2:
        return {}
    scores = normalised(comparison)
    for row in comparison.rows:
        if row not in scores:
            warn(f"'{row}' has no run on some tasks: it has no mean over tasks")
    return {row: (interval, len(scores[row])) for row, interval in interquartile_means(scores).items()}


def as_data(
    comparison: Comparison, left_out: Mapping[Path, str], means: Mapping[str, tuple[Interval, int]], picture: Path
) -> dict[str, Any]:
    """The same for scripts, with each run."""
    rows = [
        {
            "task": task,
            "row": row,
            "metric": run.metric,
            "run": str(run.folder),
            "seed": run.config["seed"],
            "final": run.final,
            "tested": run.tested,
            "steps": int(run.curve.steps[-1]),
            "minutes": None if math.isnan(run.curve.minutes[-1]) else float(run.curve.minutes[-1]),
        }
        for task, of_task in comparison.tables.items()
        for row, runs in of_task.items()
        for run in runs
    ]
    over = {row: {**interval._asdict(), "runs": seeds} for row, (interval, seeds) in means.items()}
    files = {"picture": str(picture), "table": str(picture.with_suffix(".md"))}
    return {"runs": rows, "interquartile_means": over, "left_out": {str(k): v for k, v in left_out.items()}, **files}
