"""What runs beside the training of an agent, as SB3 callbacks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from ..agents.evaluate import evaluate
from ..common.options import Count
from ..common.output import stage
from .episodes import EpisodeFile, read_rows
from .folder import CheckpointSaver, RunFolder, save
from .progress import Progress
from .stop import StopRequest

EVALUATIONS = "step,mean_return\n"  # how their file begins


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
    """Writes every finished episode down.

    :param file: where to
    """

    def __init__(self, file: EpisodeFile) -> None:
        super().__init__()
        self.file = file

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.file.add(self.num_timesteps, float(info["episode"]["r"]), int(info["episode"]["l"]))
        return True


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


class Evaluations(BaseCallback):
    """Evaluates the policy now and then while it trains, and keeps the best one as ``best_model.zip``.

    :param folder: of the run
    :param make_env: makes environments to evaluate in
    :param every: agent steps between two evaluations while training; null is never
    :param episodes: episodes of each evaluation, and of the final one
    """

    def __init__(
        self, folder: RunFolder, make_env: Callable[[], VecEnv], every: Count | None = None, episodes: Count = 8
    ) -> None:
        super().__init__()
        self.folder, self.make_env, self.every, self.episodes = folder, make_env, every, episodes
        self._env: VecEnv | None = None

    def _on_training_start(self) -> None:
        self._due = self.num_timesteps + (self.every or 0)

    def _on_rollout_end(self) -> None:
        if self.every is None or self.num_timesteps < self._due:
            return
        self._due = self.num_timesteps + self.every
        self._env = self._env or self.make_env()
        with stage(f"evaluating {self.episodes} episodes"):
            returns = evaluate(self.model, self._env, self.episodes).returns
        mean = float(np.mean(returns))
        self.logger.record("eval/mean_reward", mean)
        self.logger.dump(self.num_timesteps)
        with self.folder.attempt("the best model"):
            earlier = read_rows(self.folder.evaluations, 2)
            if not earlier or mean > max(row[1] for row in earlier):
                save(self.model, self.folder.path / "best_model.zip")
            with self.folder.evaluations.open("a", encoding="utf-8") as file:
                file.write(f"{'' if earlier else EVALUATIONS}{self.num_timesteps},{mean!r}\n")

    def _on_step(self) -> bool:
        return True

    def close(self) -> None:
        """Close the environments, however the training ended."""
        if self._env is not None:
            self._env.close()
