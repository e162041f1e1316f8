"""What runs beside the training: frames, episodes, progress and checkpoints, as SB3 callbacks."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import TextIO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3.common.callbacks import BaseCallback

from .interrupt import StopRequest
from .run_folder import save_atomically


class Stop(BaseCallback):
    """Ends the training where a stop was asked for: between two steps, or in the middle of an update, which may
    take long."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__()
        self.request = request

    def _on_rollout_start(self) -> None:
        self.request.at_once = False

    def _on_step(self) -> bool:
        return not self.request

    def _on_rollout_end(self) -> None:
        self.request.at_once = True


class Frames(BaseCallback):
    """Logs ``time/frames``: emulator frames so far, which is what published learning curves are often drawn over.

    :param frames_per_step: frames per agent step
    """

    def __init__(self, frames_per_step: int) -> None:
        super().__init__()
        self.frames_per_step = frames_per_step

    def _on_rollout_end(self) -> None:
        self.logger.record("time/frames", self.num_timesteps * self.frames_per_step)

    def _on_step(self) -> bool:
        return True


class EpisodeLog(BaseCallback):
    """Writes every finished episode to a CSV file: agent steps so far, return, length.

    :param path: the file. Where it exists, the run is continued: rows from after the checkpoint are dropped
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._file: TextIO | None = None

    def _on_training_start(self) -> None:
        kept = [row for row in read_episodes(self.path) if row[0] <= self.num_timesteps]
        self._file = self.path.open("w", newline="", encoding="utf-8", buffering=1)
        self._writer = csv.writer(self._file)
        self._writer.writerow(("step", "return", "length"))
        self._writer.writerows((int(step), value, int(length)) for step, value, length in kept)

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self._writer.writerow((self.num_timesteps, info["episode"]["r"], info["episode"]["l"]))
        return True

    def close(self) -> None:
        """Close the file, however the training ended."""
        if self._file is not None:
            self._file.close()


def read_episodes(path: Path) -> np.ndarray:
    """The rows that ``EpisodeLog`` wrote, [E, 3]: agent steps, return, length. No rows if there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
    return np.array([[float(cell) for cell in row] for row in csv.reader(lines)]).reshape(-1, 3)


class Checkpoints(BaseCallback):
    """Saves the model every few minutes and keeps the newest few.

    :param folder: where to
    :param seconds: time between two checkpoints
    :param keep: how many
    """

    def __init__(self, folder: Path, seconds: float = 300.0, keep: int = 3) -> None:
        super().__init__()
        self.folder, self.seconds, self.keep = folder, seconds, keep

    def _on_training_start(self) -> None:
        self._last = time.monotonic()

    def _on_step(self) -> bool:
        if time.monotonic() - self._last >= self.seconds:
            save_atomically(self.model, self.folder / f"step_{self.num_timesteps:012d}.zip")
            for old in sorted(self.folder.glob("step_*.zip"))[: -self.keep]:
                old.unlink()
            self._last = time.monotonic()
        return True


class ProgressBar(BaseCallback):
    """A progress bar with speed, time left and current mean return; without a terminal, a line now and then.

    :param total_timesteps: agent steps at the end of the run
    :param seconds: time between two lines where there is no terminal
    """

    def __init__(self, total_timesteps: int, seconds: float = 30.0) -> None:
        super().__init__()
        self.total_timesteps, self.seconds = total_timesteps, seconds
        self._console = Console()
        self._progress = Progress(
            BarColumn(bar_width=12),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} steps, {task.fields[status]},"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def _on_training_start(self) -> None:
        self._began, self._first_step = time.monotonic(), self.num_timesteps
        self._last_line = self._began
        self._task = self._progress.add_task(
            "", total=self.total_timesteps, completed=self.num_timesteps, status=self._status()
        )
        self._progress.start()

    def _on_step(self) -> bool:
        now = time.monotonic()
        if self._console.is_terminal:
            self._progress.update(self._task, completed=self.num_timesteps, status=self._status())
        elif now - self._last_line >= self.seconds:
            self._last_line = now
            left = (self.total_timesteps - self.num_timesteps) / max(self._speed(), 1e-9)
            print(
                f"{self.num_timesteps:,} of {self.total_timesteps:,} steps, {self._status()}, "
                f"{time.strftime('%H:%M:%S', time.gmtime(left))} left",
                flush=True,
            )
        return True

    def _speed(self) -> float:
        return (self.num_timesteps - self._first_step) / max(time.monotonic() - self._began, 1e-9)

    def _status(self) -> str:
        episodes = self.model.ep_info_buffer
        mean = f"{np.mean([episode['r'] for episode in episodes]):.1f}" if episodes else "-"
        return f"{self._speed():,.0f} steps/s, return {mean}"

    def close(self) -> None:
        """Leave the terminal as it was, however the training ended."""
        self._progress.stop()
