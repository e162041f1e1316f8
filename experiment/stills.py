"""Stills of a memory: what it held in an episode, its norms and ranks, and which past steps decisions depended on."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from stable_baselines3.common.vec_env import VecEnv

from ..agents import Algorithm
from ..agents.insight import Insight, numerical_rank, relational_ranks, saliency
from ..common.options import Count, require_options
from .play import Moment, play
from .scene import leaf_pictures

STEPS = 500  # of an episode that are looked at
WINDOW = 64  # last steps among which decisions and what they depend on are looked for
SHOWN = 5  # moments of which the memory is drawn
COLOURS = matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.6")  # grey between the tiles of a table


class Stills(NamedTuple):
    """What an episode showed of the memory."""

    figures: dict[str, Figure]  # by what they show: memory, norms, saliency
    facts: dict[str, Any]  # the numbers behind them, as JSON holds them


def look_back(model: Algorithm, env: VecEnv, deterministic: bool = True, steps: Count = STEPS) -> Stills:
    """Play an episode, and draw what the memory did in it.

    ``facts`` holds, for each leaf of the memory, its ``norms`` and, of matrices, its numerical ``ranks`` (of several
    their mean), step by step; ``relational_ranks``: the numerical rank of G2 of each STM, and its bound; and
    ``dependence``: the mean share of a decision's gradient that goes to the step so many steps before it, from 0.

    :param env: one environment
    :param deterministic: whether to take the most probable actions instead of sampled ones
    :param steps: after how many the episode is left
    """
    require_options(look_back, locals())
    moments: list[Moment] = []
    for moment in itertools.islice(play(model, env, deterministic, inside=True), steps):
        moments.append(moment)
        if moment.done:
            break
    insights = [moment.insight for moment in moments if moment.insight is not None]
    recent = moments[-WINDOW:]
    starts = [moment.start for moment in recent]
    observations = [moment.observation for moment in recent]
    gradients = saliency(model.policy, observations, recent[0].memory, starts)  # [T, T]
    shares = gradients / np.maximum(gradients.sum(axis=1, keepdims=True), 1e-30)
    leaves = list(insights[0].state)
    ranks = {name: _ranks(insights, name) for name in leaves}
    facts: dict[str, Any] = {
        "steps": len(moments),
        "return": moments[-1].total,
        "norms": {name: [float(np.linalg.norm(each.state[name])) for each in insights] for name in leaves},
        "ranks": {name: values for name, values in ranks.items() if values},
        "relational_ranks": {
            name: {"rank": rank, "bound": bound} for name, (rank, bound) in relational_ranks(model.policy.core).items()
        },
        "dependence": [float(np.diagonal(shares, -lag).mean()) for lag in range(len(shares))],
    }
    figures = {"saliency": _draw_saliency(shares, recent[0].step, facts["dependence"])}
    if leaf_pictures(insights[0].state):
        figures |= {"memory": _draw_memory(moments), "norms": _draw_norms(insights, facts)}
    return Stills(figures, facts)


def draw_stills(
    model: Algorithm, env: VecEnv, folder: str | os.PathLike[str], deterministic: bool = True
) -> list[Path]:
    """Save what ``look_back`` draws as pictures, and its facts as ``facts.json``, in a new folder.

    :return: the files
    :raises ValueError: if something is there already
    """
    folder = Path(folder)
    stills = look_back(model, env, deterministic)
    try:
        folder.mkdir()
    except FileExistsError:
        raise ValueError(f"'{folder}' exists already: choose another name, or remove it") from None
    for name, figure in stills.figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110)
    (folder / "facts.json").write_text(f"{json.dumps(stills.facts, indent=1)}\n", encoding="utf-8")
    return sorted(folder.iterdir())


def _ranks(insights: Sequence[Insight], name: str) -> list[float]:
    """The numerical rank of a leaf of matrices, of several their mean, step by step; nothing of other leaves."""
    shape = insights[0].state[name].shape
    if len(shape) < 2 or min(shape[-2:]) < 2:
        return []
    matrices = [each.state[name].reshape(-1, *shape[-2:]) for each in insights]
    return [float(np.mean([numerical_rank(matrix) for matrix in each])) for each in matrices]


def _draw_memory(moments: Sequence[Moment]) -> Figure:
    """The leaves as heat maps at a few moments, each leaf on one scale."""
    chosen = [moments[round(i)] for i in np.linspace(0, len(moments) - 1, min(SHOWN, len(moments)))]
    tables = [leaf_pictures(moment.insight.state) for moment in chosen if moment.insight is not None]
    figure = Figure(figsize=(2.3 * len(tables) + 0.8, 2.5 * len(tables[0]) + 0.3), layout="constrained")
    axes = figure.subplots(len(tables[0]), len(tables), squeeze=False)
    for row, name in zip(axes, tables[0], strict=True):
        largest = max(float(np.nanquantile(np.abs(table[name]), 0.995)) for table in tables) or 1.0
        for place, moment, table in zip(row, chosen, tables, strict=True):
            image = place.imshow(table[name], cmap=COLOURS, vmin=-largest, vmax=largest, interpolation="nearest")
            place.set(xticks=[], yticks=[])
            if place in axes[0]:
                place.set_title(f"step {moment.step}", fontsize="medium")
        row[0].set_ylabel(name.replace("_", " "))
        figure.colorbar(image, ax=row, shrink=0.8)
    return figure


def _draw_norms(insights: Sequence[Insight], facts: dict[str, Any]) -> Figure:
    """Norms of all leaves, ranks of those that are matrices, gates, and the value, over the steps of the episode."""
    gates = {name: [float(each.gates[name].mean()) for each in insights] for name in insights[0].gates}
    panels = {
        "norm": facts["norms"],
        "numerical rank": facts["ranks"],
        "mean of gates": gates,
        "value": {"value": [each.value for each in insights]},
    }
    panels = {label: lines for label, lines in panels.items() if lines}
    figure = Figure(figsize=(8, 1.9 * len(panels) + 0.6), layout="constrained")
    for axes, (label, lines) in zip(figure.subplots(len(panels), sharex=True), panels.items(), strict=True):
        _draw_lines(axes, label, lines)
    axes.set_xlabel("step")
    words = [f"{each['rank']:.1f} of at most {each['bound']}" for each in facts["relational_ranks"].values()]
    if words:
        figure.suptitle(f"numerical rank of G2: {', '.join(words)}", fontsize="medium")
    return figure


def _draw_lines(axes: Axes, label: str, lines: dict[str, list[float]]) -> None:
    for name, values in lines.items():
        axes.plot(values, label=name.replace("_", " "), linewidth=1)
    typical = [float(np.median(values)) for values in lines.values()]
    if label == "norm" and min(typical) > 0 and max(typical) > 20 * min(typical):
        axes.set_yscale("log")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    if len(lines) > 1 or label != "value":
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")


def _draw_saliency(shares: np.ndarray, first: int, dependence: list[float]) -> Figure:
    """Each decision as a row, with the share of each step in what it depends on, and how far back that reaches."""
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    n = len(shares)
    extent = (first - 0.5, first + n - 0.5, first + n - 0.5, first - 0.5)
    seen = np.where(np.tri(n, dtype=bool), shares, np.nan)
    image = left.imshow(seen**0.5, cmap="magma", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    left.set(xlabel="step that is remembered", ylabel="step of the decision", title="what decisions depend on")
    bar = figure.colorbar(image, ax=left, shrink=0.8, label="share of the gradient")
    ticks = np.array([0, 0.05, 0.25, 0.5, 1.0])
    bar.set_ticks(list(ticks**0.5), labels=[f"{tick:g}" for tick in ticks])
    right.bar(range(n), dependence, color="tab:blue", width=1.0)
    right.set(xlabel="steps before the decision", ylabel="mean share of the gradient", title="how far back they reach")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.grid(alpha=0.3)
    return figure
