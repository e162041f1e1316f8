"""Runs beside each other as one picture, and as tables beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..common.columns import markdown
from ..common.files import replacing
from .compare import Comparison, Interval, Trained, interquartile_means, normalised, spread
from .pictures import Panel, draw_panels


class Report(NamedTuple):
    """What a comparison shows."""

    comparison: Comparison
    means: Mapping[str, Interval]  # interquartile means over tasks; none of one task
    runs_per_task: Mapping[str, int]  # that these are of

    @classmethod
    def of(cls, comparison: Comparison) -> Report:
        """Average over tasks, where there are several."""
        scores = normalised(comparison) if len(comparison.tables) > 1 else {}
        return cls(comparison, interquartile_means(scores), {row: len(found) for row, found in scores.items()})

    @property
    def without_mean(self) -> list[str]:
        """Rows that have no run on some task."""
        several = len(self.comparison.tables) > 1
        return [row for row in self.comparison.rows if several and row not in self.means]

    @property
    def tables(self) -> dict[str, list[list[str]]]:
        """By title, each with its heads first."""
        found = {task: _lines(rows) for task, rows in self.comparison.tables.items()}
        if self.means:
            heads = ["", "interquartile mean (95 % interval)", "runs on each task"]
            rows = [[row, str(interval), str(self.runs_per_task[row])] for row, interval in self.means.items()]
            found[f"All {len(self.comparison.tables)} tasks, scores from 0 (worst run) to 1 (best)"] = [heads, *rows]
        return found

    def write(self, picture: Path, x: str) -> None:
        """Save the picture, and beside it the tables in Markdown.

        :param x: one of ``SCALES``
        """
        draw_panels(picture, _panels(self.comparison, x), "")
        parts = [f"![Learning curves]({picture.name})"]
        parts += [f"## {title}\n\n{markdown(table)}" for title, table in self.tables.items()]
        with replacing(picture.with_suffix(".md")) as file:
            file.write(("\n\n".join(parts) + "\n").encode())

    def as_data(self) -> dict[str, Any]:
        """For scripts, with each run."""
        runs = [
            {
                "task": task,
                "row": row,
                "metric": run.metric,
                "run": str(run.folder),
                "seed": run.config["seed"],
                "final": run.final,
                "tested": run.tested,
                "steps": int(run.curve.steps[-1]),
                "minutes": _minutes(run),
            }
            for task, of_task in self.comparison.tables.items()
            for row, runs in of_task.items()
            for run in runs
        ]
        over = {row: {**interval._asdict(), "runs": self.runs_per_task[row]} for row, interval in self.means.items()}
        return {"runs": runs, "interquartile_means": over}


def _panels(comparison: Comparison, x: str) -> list[Panel]:
    """A panel for each task."""
    found = []
    for task, rows in comparison.tables.items():
        first = next(iter(rows.values()))[0]
        label = {"steps": first.unit, "minutes": "minutes", "frames": "million frames"}[x]
        curves = {row: [run.curve for run in runs] for row, runs in rows.items()}
        found.append(Panel(curves, x, label, first.metric, task, first.levels))
    return found


def _lines(rows: Mapping[str, Sequence[Trained]]) -> list[list[str]]:
    """What the runs on one task reached: mean and range over seeds."""
    first = next(iter(rows.values()))[0]
    agent = "env.id" in first.config
    heads = ["", "seeds", first.metric if agent else f"best validation {first.metric}"]
    heads += ["final evaluation" if agent else "test", first.unit, "minutes"]
    small = all(abs(run.final) < 10 for runs in rows.values() for run in runs)
    form = ".3g" if not agent else "z.2f" if small else "z.1f"
    table = [heads]
    for row, runs in rows.items():
        ended = spread([float(run.curve.steps[-1]) for run in runs], ",.0f"), spread(list(map(_minutes, runs)), ".1f")
        scores = spread([run.final for run in runs], form), spread([run.tested for run in runs], form)
        table.append([row, str(len(runs)), *scores, *ended])
    return table


def _minutes(run: Trained) -> float | None:
    """How long a run has trained, where it knows."""
    last = float(run.curve.minutes[-1])
    return None if math.isnan(last) else last
