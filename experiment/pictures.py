"""The picture of a run: return against agent steps, or a task's metric against updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

WINDOW = 100  # episodes in the running mean, as in SB3's rollout/ep_rew_mean


def draw_learning_curve(
    path: Path,
    steps: np.ndarray,
    returns: np.ndarray,
    title: str,
    frames_per_step: int = 1,
    evaluation: float | None = None,
) -> None:
    """Save a learning curve: every episode as a dot, and the mean of the last 100.

    :param path: the PNG file
    :param steps: agent steps at the end of each episode [E]
    :param returns: return of each episode [E]
    :param title: of the picture
    :param frames_per_step: emulator frames per agent step; above 1 an axis of frames is added
    :param evaluation: mean return of a final evaluation, drawn at the end
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, returns, ".", markersize=3, alpha=0.25, color="tab:blue", label="episode")
    if len(returns):
        axes.plot(steps, running_mean(returns), color="tab:blue", label=f"mean of the last {WINDOW}")
    if evaluation is not None:
        last = steps[-1:] if len(steps) else [0]
        axes.plot(last, [evaluation], "*", markersize=12, color="tab:orange", label=f"evaluation: {evaluation:.1f}")
    axes.set(xlabel="agent steps", ylabel="return", title=title)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    axes.grid(alpha=0.3)
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
    """Save a learning curve: the metric on the validation set, beside what is trivially reached.

    :param path: the PNG file
    :param history: a trainer's
    :param metric: name of the metric
    :param title: of the picture
    :param trivial: levels by name, drawn as constant lines
    :param test: the metric on the test set, drawn at the end
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    updates = [entry["update"] for entry in history]
    axes.plot(updates, [entry[f"valid_{metric}"] for entry in history], color="tab:blue", label="validation set")
    for name, level in trivial.items():
        axes.axhline(level, linestyle="--", color="tab:gray", label=f"{name}: {level:.3g}")
    if test is not None:
        axes.plot(updates[-1:], [test], "*", markersize=12, color="tab:orange", label=f"test set: {test:.3g}")
    axes.set(xlabel="updates", ylabel=metric.replace("_", " "), title=title)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False)
    figure.savefig(path, dpi=120)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of each value and up to 99 before it: [E] -> [E]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    upto = np.arange(1, len(values) + 1)
    since = np.maximum(upto - WINDOW, 0)
    return (sums[upto] - sums[since]) / (upto - since)
