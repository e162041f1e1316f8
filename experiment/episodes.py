"""The episodes of a training: the file that holds them, and what they show."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..common.files import replacing
from ..common.output import warn
from ..common.processors import processor_seconds
from .folder import RunFolder
from .pictures import WINDOW, running_mean

HEADER = "step,return,length,seconds,processor_seconds\n"
COLUMNS = 5
THRESHOLDS = (-10, 0, 10, 18)
CURVE_STEPS = 10_000  # agent steps between the points of the curve in results.json


def read_episodes(path: Path) -> np.ndarray:
    """The episodes in a file [E, 5]: agent steps, return, length, seconds of training, and seconds that processors
    worked for it (NaN where an older version wrote the file, in fewer columns). None if there is no such file. Lines
    that are no episodes are left out."""
    rows = [[*row, math.nan, math.nan][:COLUMNS] for row in read_rows(path, 3, 4, COLUMNS)]
    return np.array(rows).reshape(-1, COLUMNS)


def read_rows(path: Path, *widths: int) -> list[list[float]]:
    """The rows of so many numbers in a file of comma-separated values, below the first line. What else there is, is
    left out with a warning, but for a last line that was cut off."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()[1:]
    rows = []
    for line in lines:
        with suppress(ValueError):
            rows.append([float(cell) for cell in line.split(",")])
    rows = [row for row in rows if len(row) in widths and math.isfinite(row[0])]
    if len(rows) < len(lines):
        warn(f"{len(lines) - len(rows)} line(s) of {path} are no rows of {widths[0]} or more numbers: left out")
    return rows


class EpisodeFile:
    """Writes episodes down as they end. Where that fails the training goes on, and the next one writes them all.

    :param run: whose file it is
    :param step: where the training goes on: what is there from behind that step is dropped
    """

    def __init__(self, run: RunFolder, step: int) -> None:
        self.run = run
        known = read_episodes(run.episodes)
        self._rows = known[known[:, 0] <= step].tolist()
        self._before = [max((row[i] for row in self._rows if row[i] >= 0), default=0.0) for i in (3, 4)]
        self._began = time.monotonic(), processor_seconds()
        self._ended: tuple[float, float] | None = None
        self._write_all()

    @property
    def seconds(self) -> float:
        """Of training so far, pauses of the run left out."""
        return self._before[0] + (self._ended[0] if self._ended else time.monotonic()) - self._began[0]

    @property
    def processor_seconds(self) -> float:
        """That processors worked for the training so far."""
        return self._before[1] + (self._ended[1] if self._ended else processor_seconds()) - self._began[1]

    @property
    def rows(self) -> np.ndarray:
        """All episodes [E, 5], as ``read_episodes`` gives them."""
        return np.array(self._rows).reshape(-1, COLUMNS)

    def add(self, step: int, episode_return: float, length: int) -> None:
        """Write down an episode that has just ended."""
        seconds = round(self.seconds, 2), round(self.processor_seconds, 2)
        self._rows.append([float(step), episode_return, float(length), *seconds])
        if not self._is_whole():
            self._write_all()
            return
        self._written = False
        with self.run.attempt("episodes.csv"):
            with self.run.episodes.open("a", encoding="utf-8") as file:
                file.write(_line(self._rows[-1]))
            self._written = True

    def close(self) -> None:
        """Make up for what could not be written, however the training ended."""
        self._ended = time.monotonic(), processor_seconds()
        if not self._is_whole():
            self._write_all()

    def _is_whole(self) -> bool:
        return self._written and self.run.episodes.exists()

    def _write_all(self) -> None:
        self._written = False
        with self.run.attempt("episodes.csv"):
            with replacing(self.run.episodes) as file:
                file.write((HEADER + "".join(map(_line, self._rows))).encode())
            self._written = True


def _line(row: list[float]) -> str:
    step, episode_return, length, *seconds = row
    known = "".join(f",{value!r}" for value in seconds if not math.isnan(value))
    return f"{step:.0f},{episode_return!r},{length:.0f}{known}\n"


def describe_episodes(rows: np.ndarray) -> dict[str, Any]:
    """What the episodes [E, 4 or more] of a training show, for ``results.json``: ``curve`` has agent steps, minutes,
    and the mean return of the last 100 episodes; ``first_reached`` where that mean, of 100, or of all where there were
    fewer, first exceeded some levels, and ``best_mean_return_100`` the highest such mean."""
    steps, returns, _, seconds = rows[:, :4].T
    means = running_mean(returns)
    whole = slice(min(WINDOW, len(rows)) - 1, None)  # the mean of a few lucky first episodes does not count

    def minutes(step: float) -> float:
        return round(float(np.interp(step, steps, seconds)) / 60, 2)

    def crossing(level: float) -> dict[str, float] | None:
        above = means[whole] > level
        step = steps[whole][np.argmax(above)] if above.any() else None
        return None if step is None else {"agent_steps": int(step), "minutes": minutes(step)}

    points = [*range(CURVE_STEPS, int(steps[-1]), CURVE_STEPS), int(steps[-1])] if len(rows) else []
    counts = [int(np.searchsorted(steps, step, side="right")) for step in points]
    return {
        "episodes": len(rows),
        "curve": [
            [step, minutes(step), round(float(means[n - 1]), 2)] for step, n in zip(points, counts, strict=True) if n
        ],
        "first_reached": {str(level): crossing(level) for level in THRESHOLDS},
        "mean_return_last_100": round(float(means[-1]), 2) if len(rows) else None,
        "best_mean_return_100": round(float(means[whole].max()), 2) if len(rows) else None,
    }
