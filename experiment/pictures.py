"""The pictures: the learning curve of one run, and those of several runs side by side."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WINDOW = 100  # episodes in the running mean, as in SB3's rollout/ep_rew_mean
COLOURS = {
    "stm": "tab:blue",
    "rmc": "tab:orange",
    "lstm": "tab:green",
    "attentional_lstm": "tab:red",
    "gru": "tab:purple",
    "lstm_stm": "tab:cyan",
}  # of a core's lines in every picture of several runs; all cores of users share one more
SOLVED = 18  # the mean return on Pong that a dashed line marks


def draw_learning_curve(
    path: Path,
    steps: np.ndarray,
    returns: np.ndarray,
    title: str,
    frames_per_step: int = 1,
    evaluation: float | None = None,
) -> None:
    """Save the learning curve of an agent: every episode as a dot, and the mean of the last 100.

    :param path: the PNG file
    :param steps: agent steps at the end of each episode [E]
    :param returns: return of each episode [E]
    :param title: of the picture
    :param frames_per_step: emulator frames per agent step; above 1 an axis of frames is added
    :param evaluation: mean return of a final evaluation, drawn at the end
    """
    figure, axes = _one_run(title, "agent steps", "return")
    axes.plot(steps, returns, ".", markersize=3, alpha=0.25, color="tab:blue", label="episode")
    if len(returns):
        axes.plot(steps, running_mean(returns), color="tab:blue", label=f"mean of the last {WINDOW}")
    if evaluation is not None:
        last = steps[-1:] if len(steps) else [0]
        axes.plot(last, [evaluation], "*", markersize=12, color="tab:orange", label=f"evaluation: {evaluation:.1f}")
    axes.legend(loc="upper left", frameon=False)
    if frames_per_step > 1:
        frames = axes.secondary_xaxis(
            "top", functions=(partial(np.multiply, frames_per_step), partial(np.multiply, 1 / frames_per_step))
        )
        frames.set_xlabel("frames")
    figure.savefig(path, dpi=120)


def draw_task_curve(
    path: Path,
    history: Sequence[Mapping[str, float]],
    metric: str,
    title: str,
    trivial: Mapping[str, float],
    test: float | None = None,
) -> None:
    """Save the learning curve of a task: the metric on the validation set, beside the trivial levels.

    :param path: the PNG file
    :param history: a trainer's
    :param metric: name of the metric
    :param title: of the picture
    :param trivial: levels by name, drawn as constant lines
    :param test: the metric on the test set, drawn at the end
    """
    figure, axes = _one_run(title, "updates", metric.replace("_", " "))
    updates = [entry["update"] for entry in history]
    axes.plot(updates, [entry[f"valid_{metric}"] for entry in history], color="tab:blue", label="validation set")
    _draw_levels(axes, {f"{name}: {level:.3g}": level for name, level in trivial.items()})
    if test is not None:
        axes.plot(updates[-1:], [test], "*", markersize=12, color="tab:orange", label=f"test set: {test:.3g}")
    axes.set_ylim(bottom=0)
    axes.legend(loc="best", frameon=False)
    figure.savefig(path, dpi=120)


def draw_agents(path: Path, results: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """Save the mean return of several agents against agent steps and minutes, a colour for each core.

    :param results: of each run, by its title
    """
    figure, by_step, by_minute = _several_runs(title, "agent steps", "mean return of 100 episodes")
    for result in results.values():
        steps, minutes, means = zip(*result["curve"], strict=True)
        by_step.plot(steps, means, color=colour(result["core"]))
        by_minute.plot(minutes, means, color=colour(result["core"]))
    for axes in (by_step, by_minute):
        axes.axhline(SOLVED, linestyle="--", color="tab:gray", linewidth=1)
    for core in sorted({result["core"] for result in results.values()}):
        by_step.plot([], [], color=colour(core), label=core.upper())
    by_step.legend(frameon=False)
    figure.savefig(path, dpi=110)


def draw_models(
    path: Path, results: Mapping[str, Mapping[str, Any]], title: str, trivial: Mapping[str, float], which: str = ""
) -> None:
    """Save the metric of several models of one task on the validation set, against updates and minutes.

    :param results: of each run, by its title
    :param trivial: levels by name, drawn as constant lines
    :param which: what the validation set is of, where the title does not say
    """
    metric = next(iter(results.values()))["metric"]
    label = ", ".join(filter(None, (metric.replace("_", " "), which, "validation")))
    figure, by_update, by_minute = _several_runs(title, "updates", label)
    styles: dict[str, Iterator[str]] = defaultdict(lambda: itertools.cycle(("-", "--", ":", "-.")))
    for name, result in results.items():
        look: dict[str, Any] = {"color": colour(result["core"]), "linestyle": next(styles[result["core"]])}
        values = [entry[f"valid_{metric}"] for entry in result["history"]]
        by_update.plot([entry["update"] for entry in result["history"]], values, label=name, **look)
        by_minute.plot([entry["seconds"] / 60 for entry in result["history"]], values, **look)
    for axes in (by_update, by_minute):
        _draw_levels(axes, trivial)
        axes.set_ylim(bottom=0)
    figure.legend(*by_update.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def colour(core: str) -> str:
    """Of a core's lines; one for all cores of a user's own."""
    return COLOURS.get(core, "tab:brown")


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of each value and up to 99 before it: [E] -> [E]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    upto = np.arange(1, len(values) + 1)
    since = np.maximum(upto - WINDOW, 0)
    return (sums[upto] - sums[since]) / (upto - since)


def _draw_levels(axes: Axes, levels: Mapping[str, float]) -> None:
    for (name, level), style in zip(levels.items(), itertools.cycle(("-", "--", ":")), strict=False):
        axes.axhline(level, linewidth=1, color="tab:gray", linestyle=style, label=name)


def _one_run(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, wrap=True)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    axes.grid(alpha=0.3)
    return figure, axes


def _several_runs(title: str, x: str, y: str) -> tuple[Figure, Axes, Axes]:
    """A picture of two halves: by ``x``, and by minutes."""
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, label in ((left, x), (right, "minutes")):
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    left.set(ylabel=y)
    left.xaxis.set_major_formatter("{x:,.0f}")
    figure.suptitle(title)
    return figure, left, right
