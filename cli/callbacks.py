"""What runs beside the training: frames, episodes, progress and checkpoints, as SB3 callbacks."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TextIO

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from .files import replacing
from .interrupt import StopRequest
from .progress import Progress
from .run_folder import CheckpointSaver, RunFolder


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
        rows = io.StringIO(newline="")
        writer = csv.writer(rows)
        writer.writerow(("step", "return", "length"))
        writer.writerows((int(step), value, int(length)) for step, value, length in kept)
        with replacing(self.path) as file:
            file.write(rows.getvalue().encode())
        self._file = self.path.open("a", newline="", encoding="utf-8", buffering=1)
        self._writer = csv.writer(self._file)

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
    """The rows that ``EpisodeLog`` wrote, [E, 3]: agent steps, return, length. No rows if there is no such file. A last
    one that was cut off is left out."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()[1:]
    return np.array([[float(cell) for cell in row] for row in csv.reader(lines)]).reshape(-1, 3)


class Checkpoints(BaseCallback):
    """Saves the model every few minutes.

    :param folder: of the run
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.folder = folder

    def _on_training_start(self) -> None:
        self._save = CheckpointSaver(self.folder)

    def _on_step(self) -> bool:
        self._save(self.model, self.num_timesteps)
        return True


class ProgressBar(BaseCallback):
    """A progress bar with speed, time left and current mean return.

    :param total_timesteps: agent steps at the end of the run
    :param seconds: time between two lines where there is no terminal
    """

    def __init__(self, total_timesteps: int, seconds: float = 30.0) -> None:
        super().__init__()
        self._progress = Progress(total_timesteps, "steps", seconds)

    def _on_training_start(self) -> None:
        self._progress.start(self.num_timesteps, self._status())

    def _on_step(self) -> bool:
        self._progress.update(self.num_timesteps, self._status())
        return True

    def _status(self) -> str:
        episodes = self.model.ep_info_buffer
        return f"return {np.mean([episode['r'] for episode in episodes]):.1f}" if episodes else "return -"

    def close(self) -> None:
        """Leave the terminal as it was, however the training ended."""
        self._progress.close()
