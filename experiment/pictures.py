"""The pictures: the learning curve of one run, and those of several runs side by side."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WINDOW = 100  # episodes in the running mean, as in SB3's rollout/ep_rew_mean
COLOURS = {
    "identity": "black",
    "stm": "tab:blue",
    "rmc": "tab:orange",
    "lstm": "tab:green",
    "attentional_lstm": "tab:red",
    "gru": "tab:purple",
    "lstm_stm": "tab:cyan",
    "gated_delta_net": "tab:pink",
    "mlstm": "tab:olive",
    "min_gru": "goldenrod",
    "gtrxl": "tab:brown",
}  # of a core's lines in every picture of several runs
OTHER_COLOURS = ("navy", "salmon", "darkseagreen", "indigo", "lime", "tan", "teal", "crimson")
"""Of the other cores of a picture, as they come."""


def draw_learning_curve(
    path: Path,
    steps: np.ndarray,
    returns: np.ndarray,
    title: str,
    frames_per_step: int = 1,
    evaluation: float | None = None,
) -> None:
    """Save the learning curve of an agent: every episode as a dot, and the mean of the last 100.

    :param steps: agent steps at the end of each episode [E]
    :param returns: return of each episode [E]
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

    :param history: a trainer's
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


class Curve(NamedTuple):
    """What one run scored as it went on."""

    core: str
    steps: np.ndarray  # [N], or updates
    minutes: np.ndarray  # [N]
    scores: np.ndarray  # [N]
    frames_per_step: int = 1  # of an agent that skips frames


def _million_frames(curve: Curve) -> np.ndarray:
    return curve.steps * curve.frames_per_step / 1e6


SCALES: dict[str, Callable[[Curve], np.ndarray]] = {
    "steps": lambda curve: curve.steps,
    "minutes": lambda curve: curve.minutes,
    "frames": _million_frames,
}
"""What curves may be drawn against; of frames, millions."""


class Panel(NamedTuple):
    """Axes of a picture: the curves of several runs."""

    rows: Mapping[str, Sequence[Curve]]  # the runs of each row, which differ in nothing but their seeds
    scale: str  # one of SCALES
    x: str  # what that is
    y: str  # what the scores are
    title: str = ""
    levels: Mapping[str, float] = MappingProxyType({})  # by name, drawn as constant lines


def draw_curves(
    path: Path, rows: Mapping[str, Sequence[Curve]], title: str, x: str, y: str, levels: Mapping[str, float]
) -> None:
    """Save the curves of several runs, against steps, minutes and (where they are skipped) frames.

    :param rows: the runs of each row, which differ in nothing but their seeds
    :param x: what the steps are
    :param y: what the scores are
    :param levels: by name, drawn as constant lines
    """
    scales = {"steps": x, "minutes": "minutes"}
    if all(curve.frames_per_step > 1 for curves in rows.values() for curve in curves):
        scales["frames"] = "million frames"
    panels = [Panel(rows, scale, label, y if scale == "steps" else "", "", levels) for scale, label in scales.items()]
    draw_panels(path, panels, title)


def draw_panels(path: Path, panels: Sequence[Panel], title: str, columns: int = 3) -> None:
    """Save the curves of several runs, some of them in several panels: a line for each row, in the colour of its core
    and with a band over its seeds.

    :param columns: how many panels are side by side, at most; those of one row of them share their scores
    """
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(max(5 * columns, 6), 0.8 + 4 * lines), layout="constrained")
    same = all(panel.rows is panels[0].rows for panel in panels)
    grid = figure.subplots(lines, columns, sharey="row" if same else False, squeeze=False).flat
    looks = _looks([panel.rows for panel in panels])
    for panel, axes in zip(panels, grid, strict=False):
        for name, curves in panel.rows.items():
            scale = SCALES[panel.scale]
            _draw_seeds(axes, [(scale(curve), curve.scores) for curve in curves], label=name, **looks[name])
        axes.set(xlabel=panel.x, ylabel=panel.y, title=panel.title)
        axes.grid(alpha=0.3)
        _draw_levels(axes, panel.levels)
        if all((curve.scores >= 0).all() for curves in panel.rows.values() for curve in curves):
            axes.set_ylim(bottom=0)
        if panel.scale == "steps":
            axes.xaxis.set_major_formatter("{x:,.0f}")
    for axes in list(grid):  # what is left
        axes.remove()
    figure.suptitle(title)
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        artists, names = axes.get_legend_handles_labels()
        entries |= dict(zip(names, artists, strict=True))
    look: dict[str, Any] = {"ncols": 3, "frameon": False, "fontsize": "small"}
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", **look)
    figure.savefig(path, dpi=110)


def draw_intervals(path: Path, intervals: Mapping[str, Sequence[float]], x: str) -> None:
    """Save estimates, each in its interval, the best at the top.

    :param intervals: by name, the estimate and the ends of the interval
    """
    order = sorted(intervals, key=lambda name: intervals[name][0])
    estimates, lows, highs = np.array([intervals[name] for name in order]).T
    figure = Figure(figsize=(7, 1.2 + 0.35 * len(order)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(order, highs - lows, left=lows, height=0.5, alpha=0.4)
    axes.vlines(estimates, np.arange(len(order)) - 0.25, np.arange(len(order)) + 0.25, color="black")
    axes.set(xlabel=x)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)


def _looks(panels: Sequence[Mapping[str, Sequence[Curve]]]) -> dict[str, dict[str, Any]]:
    """Colour and line of each row: the colour is its core's, and rows of one core differ in their lines."""
    looks: dict[str, dict[str, Any]] = {}
    styles: dict[str, Iterator[str]] = defaultdict(lambda: itertools.cycle(("-", "--", ":", "-.")))
    others, colours = itertools.cycle(OTHER_COLOURS), dict(COLOURS)
    for name, curves in ((name, curves) for rows in panels for name, curves in rows.items()):
        if name not in looks:
            core = curves[0].core
            colours[core] = colours.get(core) or next(others)
            looks[name] = {"color": colours[core], "linestyle": next(styles[core])}
    return looks


def _draw_seeds(axes: Axes, lines: Sequence[tuple[np.ndarray, np.ndarray]], color: str, **look: Any) -> None:
    """One line; or, of several seeds, thin ones, and as far as all of them went their mean in a band of their range."""
    if len(lines) == 1:
        axes.plot(*lines[0], color=color, **look)
        return
    for x, y in lines:
        axes.plot(x, y, color=color, alpha=0.4, linewidth=0.7)
    begin, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    shared = np.linspace(begin, max(begin, end), 200)
    values = np.array([np.interp(shared, x, y) for x, y in lines])  # [seeds, 200]
    axes.plot(shared, values.mean(axis=0), color=color, **look)
    axes.fill_between(shared, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)


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
