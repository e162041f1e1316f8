"""How models did over all tables of one kind: interquartile means of scores from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from ..common.columns import markdown
from .compare import Interval, interquartile_means
from .pictures import draw_intervals
from .run_list import Run, Table

END, BEST = "mean_return_last_100", "best_mean_return_100"
PICTURE = "overall.png"


class Overall(NamedTuple):
    """What the models reached that were trained in whole on every task."""

    tasks: Sequence[Table]
    at_end: Mapping[str, Interval]
    best: Mapping[str, Interval]
    seeds: Mapping[str, int]  # on each task
    missing: Sequence[str]  # models that lack a task


def overall(found: Mapping[Table, Mapping[Run, Any]]) -> Overall | None:
    """Average over the tables that say between which returns a score goes from 0 to 1.

    Of rows of one model, which differ in their rates, the one that was better at the end counts on each task. Rows are
    whole, or left out.

    :param found: the results of each table
    :return: None where fewer than two tables, or no models, can be averaged over
    """
    tasks = [table for table, results in found.items() if table.range and results]
    chosen = [_best_rows(table, found[table]) for table in tasks]
    models = list(dict.fromkeys(model for rows in chosen for model in rows))
    whole = [model for model in models if all(model in rows for rows in chosen)]
    if len(tasks) < 2 or not whole:
        return None
    seeds = {model: min(len(rows[model]) for rows in chosen) for model in whole}

    def means(key: str) -> dict[str, Interval]:
        scores = {
            model: np.array(
                [
                    [_score(table, result, key) for result in rows[model][: seeds[model]]]
                    for table, rows in zip(tasks, chosen, strict=True)
                ]
            ).T  # [seeds, tasks]
            for model in whole
        }
        return interquartile_means(scores)

    return Overall(tasks, means(END), means(BEST), seeds, [model for model in models if model not in whole])


def _best_rows(table: Table, results: Mapping[Run, Any]) -> dict[str, list[Any]]:
    """The results of the better whole row of each model."""
    rows: dict[str, list[list[Run]]] = {}
    for run in table.runs:
        of_model = rows.setdefault(run.model, [])
        if not of_model or of_model[-1][0].row != run.row:
            of_model.append([])
        of_model[-1].append(run)
    best = {}
    for model, of_model in rows.items():
        whole = [[results[run] for run in row] for row in of_model if all(run in results for run in row)]
        if whole:
            best[model] = max(whole, key=lambda row: fmean(_score(table, result, END) for result in row))
    return best


def _score(table: Table, result: Mapping[str, Any], key: str) -> float:
    """A return on the scale of its task; 0 where the training ended before there was one."""
    low, high = table.range
    return 0.0 if result.get(key) is None else (result[key] - low) / (high - low)


def section(found: Overall) -> str:
    """A table in Markdown, best first, with what its numbers are."""
    heads = ["", "at the end", "best mean of 100", "seeds on each task"]
    order = sorted(found.at_end, key=lambda model: -found.at_end[model].estimate)
    rows = [[model, str(found.at_end[model]), str(found.best[model]), str(found.seeds[model])] for model in order]
    scales = "; ".join(f"{table.title} ({table.range[0]:g} to {table.range[1]:g})" for table in found.tasks)
    words = (
        "Interquartile means over tasks and seeds, with 95 % intervals of a bootstrap that is stratified by task. A "
        "score goes from 0 to 1 between the returns in parentheses; of two rates, the one that is better at the end "
        f"counts on each task. {scales}."
    )
    left_out = f"Not trained on every task yet: {', '.join(found.missing)}." if found.missing else ""
    parts = ["## Over all tasks", markdown([heads, *rows]), words, left_out, f"![Interquartile means]({PICTURE})"]
    return "\n\n".join(filter(None, parts))


def draw(path: Path, found: Overall) -> None:
    """Save the means at the end with their intervals as a picture."""
    draw_intervals(path, found.at_end, "interquartile mean")
