"""What runs beside the training of an agent, as SB3 callbacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from typing import cast

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Figure
from stable_baselines3.common.vec_env import VecEnv

from ..agents.base import MemoryAlgorithm
from ..agents.evaluate import evaluate
from ..common.files import replacing
from ..common.options import Count
from ..common.output import stage
from .episodes import EpisodeFile, read_rows
from .folder import RunFolder, save
from .progress import Progress
from .stills import look_back
from .stop import StopRequest

EVALUATIONS = "step,mean_return\n"  # how their file begins
STEPS_DRAWN = 200  # of the episode in which the memory is looked at


class Watch(BaseCallback):
    """Writes every finished episode down, saves checkpoints, shows the progress, logs ``time/frames``, which published
    learning curves are often drawn over, and ends the training where a stop was asked for: between two steps, or in the
    middle of an update, which may take long.

    :param folder: of the run
    :param episodes: where they are written down
    :param total_timesteps: agent steps at the end of the run
    :param frames_per_step: emulator frames per agent step
    :param stop: the user's wish
    :param alone: whether no other process would wait for the rest of an update
    """

    def __init__(
        self, folder: RunFolder, episodes: EpisodeFile, total_timesteps: int, frames_per_step: int, stop: StopRequest,
        alone: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.folder, self.episodes, self.frames_per_step, self.stop = folder, episodes, frames_per_step, stop
        self.alone = alone
        self.progress = Progress(total_timesteps, "steps")

    def _on_training_start(self) -> None:
        self.progress.start(self.num_timesteps, self._status())

    def _on_rollout_start(self) -> None:
        self.stop.at_once = False
        # Not in the middle of a rollout, whose steps do not count before they are learned from.
        if self.folder.is_due():
            with cast(MemoryAlgorithm, self.model).settled():
                self.folder.checkpoint(self.model, self.model.num_timesteps)

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.episodes.add(self.num_timesteps, float(info["episode"]["r"]), int(info["episode"]["l"]))
        self.progress.update(self.num_timesteps, status=self._status())
        return not self.stop

    def _on_rollout_end(self) -> None:
        self.logger.record("time/frames", self.num_timesteps * self.frames_per_step)
        self.stop.at_once = self.alone

    def _status(self) -> str:
        returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        return f"return {np.mean(returns):.1f}" if returns else "return -"

    def close(self) -> None:
        """Leave terminal and files in order, however the training ended."""
        self.stop.at_once = False  # the last update is over
        self.progress.close()
        self.episodes.close()


class Evaluations(BaseCallback):
    """Evaluates the policy now and then while it trains, and keeps the best one as ``best_model.zip``.

    :param folder: of the run
    :param make_env: makes environments to evaluate in, as many as it is given or, without a number, takes
    :param every: agent steps between two evaluations while training; null is never
    :param episodes: episodes of each evaluation, and of the final one
    :param memory: whether each evaluation while training draws what the memory does in an episode, as images in
        TensorBoard: see ``stills.py``
    :param evaluated: called with steps and mean return after each evaluation
    """

    def __init__(
        self,
        folder: RunFolder,
        make_env: Callable[..., VecEnv],
        every: Count | None = None,
        episodes: Count = 8,
        memory: bool = False,
        evaluated: Callable[[int, float], None] | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.make_env, self.every, self.episodes, self.memory = folder, make_env, every, episodes, memory
        self.evaluated = evaluated

    def _on_training_start(self) -> None:
        self._due = self._next()
        with self.folder.attempt("the evaluations"):
            rows = read_rows(self.folder.evaluations, 2)
            kept = [row for row in rows if row[0] <= self.num_timesteps]
            if len(kept) < len(rows):  # a run that was killed comes to the later ones again
                with replacing(self.folder.evaluations) as file:
                    file.write((EVALUATIONS + "".join(f"{int(step)},{mean!r}\n" for step, mean in kept)).encode())

    def _next(self) -> float:
        """The next step at which to evaluate, wherever the training was taken up."""
        return math.inf if self.every is None else (self.num_timesteps // self.every + 1) * self.every

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self.num_timesteps < self._due:
            return
        self._due = self._next()
        with stage(f"evaluating {self.episodes} episodes"), closing(self.make_env()) as env:
            mean = float(np.mean(evaluate(self.model, env, self.episodes).returns))
        self.logger.record("eval/mean_reward", mean)
        if self.memory:
            self._draw_memory()
        self.logger.dump(self.num_timesteps)
        with self.folder.attempt("the best model"):
            earlier = read_rows(self.folder.evaluations, 2)
            if all(mean > best for _, best in earlier):
                save(self.model, self.folder.path / "best_model.zip")
            with self.folder.evaluations.open("a", encoding="utf-8") as file:
                file.write(f"{'' if earlier else EVALUATIONS}{self.num_timesteps},{mean!r}\n")
        if self.evaluated is not None:
            self.evaluated(self.num_timesteps, mean)

    def _draw_memory(self) -> None:
        with stage("drawing the memory"), closing(self.make_env(1)) as env:
            stills = look_back(self.model, env, steps=STEPS_DRAWN)  # type: ignore[arg-type]
        for name, figure in stills.figures.items():
            self.logger.record(f"memory/{name}", Figure(figure, close=False))
        for leaf, ranks in stills.facts["ranks"].items():
            self.logger.record(f"memory/{leaf}_rank", float(np.mean(ranks)))
        for name, found in stills.facts["relational_ranks"].items():
            self.logger.record(f"memory/{name.removesuffix('.weight')}_rank", found["rank"])
