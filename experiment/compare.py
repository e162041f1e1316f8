"""Runs beside each other: which there are, in what they differ, and how they did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from ..common.checks import require_choice
from ..common.values import read, shown
from ..envs.make import ALE_GAMES
from .episodes import read_episodes
from .folder import RunFolder
from .pictures import WINDOW, Curve, running_mean

POINTS = 500  # of a curve, at most
TASK = ("env.id", "env.kwargs", "env.frame_skip", "env.flicker", "task.")  # options that say what is trained on
HARDWARE = (
    "seed",
    "device",
    "precision",
    "threads",
    "launcher",
    "ray.",
    "env.n_threads",
    "env.backend",
    "algo.workers",
)
KEPT = ("track", "keep")  # what is shown and kept of a training
LENGTH = ("total_timesteps", "total_updates", "max_minutes", "eval.")
SHORT = {"core": "core.name", "algo": "algo.name", "env": "env.id", "task": "task.name"}
BOOTSTRAPS = 2000
CONFIDENCE = 0.95


class Trained(NamedTuple):
    """A run that has something to show."""

    folder: Path
    config: Mapping[str, Any]  # by dotted names
    curve: Curve
    metric: str
    higher_is_better: bool
    final: float  # mean return of the last 100 episodes, or best score on the validation set
    tested: float | None  # mean return of the final evaluation, or score on the test set
    levels: Mapping[str, float]  # that trivial strategies reach on a task, by name

    @property
    def subject(self) -> str:
        """What it was trained on, in a word."""
        return str(self.config.get("env.id") or self.config["task.name"])

    @property
    def unit(self) -> str:
        return "agent steps" if "env.id" in self.config else "updates"


def find_runs(paths: Iterable[Path]) -> tuple[list[Trained], dict[Path, str]]:
    """The runs in these folders, or in folders below them.

    :return: those that have something to show, and why the others have not, such as files among the paths
    :raises ValueError: if there is nothing at a path
    """
    runs: list[Trained] = []
    left_out: dict[Path, str] = {}
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise ValueError(f"there is no folder '{path}'")
        folders = sorted(config.parent for config in path.rglob("config.yaml"))
        if not folders:
            left_out[path] = "there is no config.yaml in it or below" if path.is_dir() else "it is no folder"
        for folder in folders:
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            found = read_run(folder)
            if isinstance(found, Trained):
                runs.append(found)
            else:
                left_out[folder] = found
    return runs, left_out


def read_run(folder: Path) -> Trained | str:
    """A run; in words, why there is nothing to show of it."""
    try:
        config = _flat(read((folder / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return "its config cannot be read"
    results = RunFolder(folder).read_results()
    if "task.name" in config:
        return _model(folder, config, results)
    if "env.id" not in config:
        return "its config is none of a run"
    steps, returns, _, seconds = read_episodes(folder / "episodes.csv")[:, :4].T
    if not len(steps):
        return "no episode has ended yet"
    means = running_mean(returns)
    first = min(WINDOW, max(1, len(steps) // 10)) - 1  # the mean of a few lucky first episodes is no mean
    kept = np.unique(np.linspace(first, len(steps) - 1, POINTS).astype(int))
    frames = results.get("frames_per_step") or _frames_per_step(config)
    curve = Curve(str(config["core.name"]), steps[kept], seconds[kept] / 60, means[kept], frames)
    evaluation = results.get("evaluation") or {}
    metric = f"mean return of {WINDOW} episodes"
    return Trained(folder, config, curve, metric, True, float(means[-1]), evaluation.get("mean"), {})


def _frames_per_step(config: Mapping[str, Any]) -> int:
    """Of a run without results yet: what was asked for, or what the id says."""
    id, frames = str(config["env.id"]), config.get("env.frame_skip")
    if frames is None and id in gymnasium.registry:
        frames = 4 if id in ALE_GAMES else gymnasium.registry[id].kwargs.get("frame_skip")
    return max(int(frames or 1), 1)


def _model(folder: Path, config: Mapping[str, Any], results: Mapping[str, Any]) -> Trained | str:
    """A run of a supervised task."""
    history, metric = results.get("history"), results.get("metric", "")
    if not history:
        return "it has not been evaluated yet"
    points = [(entry["update"], entry["seconds"] / 60, entry[f"valid_{metric}"]) for entry in history]
    curve = Curve(str(config["core.name"]), *np.array(points, dtype=float).T)
    higher = bool(results["higher_is_better"])
    best = float((np.max if higher else np.min)(curve.scores))
    tested = ((results.get("test") or {}).get("test") or {}).get(metric)
    levels = (results.get("trivial") or {}).get("valid", {})
    return Trained(folder, config, curve, metric.replace("_", " "), higher, best, tested, levels)


def _flat(config: Any) -> dict[str, Any]:
    """The options of a saved config by dotted names. What is nested deeper is the value of one of them."""
    flat: dict[str, Any] = {}
    for key, value in config.items() if isinstance(config, dict) else ():
        flat |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
    return flat


# ---------------------------------------------------------------- rows and tasks


class Comparison(NamedTuple):
    """Runs in tables: one for each task, with a row for all seeds of what was trained on it."""

    tables: Mapping[str, Mapping[str, Sequence[Trained]]]

    @property
    def rows(self) -> list[str]:
        """Of all tables."""
        return list(dict.fromkeys(row for table in self.tables.values() for row in table))


def compare(runs: Sequence[Trained], by: Sequence[str] = ()) -> Comparison:
    """Sort runs into tasks and rows.

    :param by: options that rows differ in, such as ``core`` or ``algo.learning_rate``; without any, all those that
        differ between runs on one task, but for seeds, hardware and lengths
    :raises ValueError: if no run has such an option, naming the nearest
    """
    keys = [SHORT.get(name, name) for name in by]
    for key in keys:
        require_choice("option to compare by", key, dict.fromkeys(key for run in runs for key in run.config))
    of_task = [key for key in _differing(runs) if key.startswith(TASK) and key not in (*keys, *SHORT.values())]
    tasks: dict[str, list[Trained]] = defaultdict(list)
    for run in runs:
        tasks[", ".join([run.subject, *_words(run, of_task)])].append(run)
    if not keys:
        passed_over = (*TASK, *HARDWARE, *KEPT, *LENGTH)
        found = dict.fromkeys(key for of_one in tasks.values() for key in _differing(of_one))
        keys = [key for key in found if not key.startswith(passed_over)]
        if len({run.config["core.name"] for run in runs}) > 1:
            keys = list(dict.fromkeys(["core.name", *keys]))
    tables: dict[str, dict[str, list[Trained]]] = {}
    for task, of_one in tasks.items():
        for run in of_one:
            row = ", ".join(_words(run, keys)) or str(run.config["core.name"])
            tables.setdefault(task, {}).setdefault(row, []).append(run)
    return Comparison(tables)


def _differing(runs: Sequence[Trained]) -> list[str]:
    """Options in which runs differ. Those of a core, an algorithm, an environment or a task are held against those of
    the same name alone."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    seen: dict[str, dict[Any, set[str]]] = {key: defaultdict(set) for key in keys}
    for run in runs:
        for key in keys:
            name = SHORT.get(key.partition(".")[0], "")
            seen[key][None if key == name else run.config.get(name)].add(shown(run.config.get(key)))
    return [key for key, by_name in seen.items() if any(len(values) > 1 for values in by_name.values())]


def _words(run: Trained, keys: Sequence[str]) -> list[str]:
    """The values of options, as one would call them."""
    parts = []
    for key in keys:
        value = run.config.get(key)
        if key in SHORT.values():
            parts.append(str(value))
        elif isinstance(value, dict):
            parts += [f"{name} {shown(item)}" for name, item in value.items()]
        elif key in run.config:
            parts.append(f"{key.rpartition('.')[2]} {shown(value)}")
    return parts


# ---------------------------------------------------------------- figures


def spread(values: Sequence[float | None], form: str) -> str:
    """One number; or, of several seeds, mean and range. Nothing where one has none."""
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return ""
    mean, low, high = (format(f(numbers), form) for f in (fmean, min, max))
    return mean if low == high else f"{mean} ({low} to {high})"


class Interval(NamedTuple):
    """An estimate and the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.2f} ({self.low:.2f} to {self.high:.2f})"


def interquartile_means(scores: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """The mean of the middle half of each row's scores, with a 95 % interval of a bootstrap that is stratified by task
    (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264), as their package rliable has them. That one goes with no
    pandas of version 3.

    :param scores: of each row [seeds, tasks], normalised so that they may be averaged over tasks
    """
    generator, found = np.random.default_rng(0), {}
    for row, of_row in scores.items():
        seeds, tasks = of_row.shape
        drawn = generator.integers(seeds, size=(BOOTSTRAPS, seeds, tasks))
        samples = of_row[drawn, np.arange(tasks)]  # [bootstraps, seeds, tasks]
        low, high = np.quantile(middle_half(samples), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        found[row] = Interval(float(middle_half(of_row[None])[0]), float(low), float(high))
    return found


def middle_half(scores: np.ndarray) -> np.ndarray:
    """The mean without the lowest and the highest quarter, rounded down: [..., seeds, tasks] -> [...]."""
    ordered = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def normalised(comparison: Comparison) -> dict[str, np.ndarray]:
    """The final scores [seeds, tasks] of the rows that have a run on every task, from 0, the worst run on a task, to 1,
    the best. Of rows with more seeds on one task than on another, the first ones count."""
    bounds = {}
    for task, rows in comparison.tables.items():
        finals = [run.final for runs in rows.values() for run in runs]
        first = next(iter(rows.values()))[0]
        bounds[task] = (min(finals), max(finals)) if first.higher_is_better else (max(finals), min(finals))
    found = {}
    for row in comparison.rows:
        runs = [(bounds[task], rows.get(row, ())) for task, rows in comparison.tables.items()]
        seeds = min(len(of_task) for _, of_task in runs)
        if seeds:
            found[row] = np.array(
                [
                    [(run.final - low) / ((high - low) or 1.0) for run in of_task[:seeds]]
                    for (low, high), of_task in runs
                ]
            ).T
    return found
