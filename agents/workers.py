"""What A3C and IMPALA have in common: workers that build environments of their own."""

from __future__ import annotations

import io
import itertools
import pathlib
import secrets
import time
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from ..common.processors import available_processors
from .base import MemoryAlgorithm
from .distributed import Launcher, start_fleet
from .distributed.fleet import Job, Result, weights_of
from .finite import require_finite_weights
from .messages import Report
from .worker_envs import EnvFactory, build_env, env_factory

REFRESH_SECONDS = 1.0  # between copies of the weights that callbacks see, and that the guard may go back to


class WorkerAlgorithm(MemoryAlgorithm):
    """An algorithm whose workers build environments of their own."""

    workers: int | None
    envs_per_worker: int
    launcher: Launcher
    min_workers: int
    env_kwargs: dict[str, Any] | None
    _env_factory: EnvFactory | None

    def _take_env(
        self, env: str | EnvFactory | None, env_kwargs: dict[str, Any] | None, seed: int | None
    ) -> VecEnv | None:
        """Keep the recipe of the environments, and build those of one worker: the main process only asks them for their
        spaces, but callbacks may look at them."""
        self.env_kwargs = env_kwargs
        self._env_factory = None if env is None else env_factory(env, env_kwargs)
        return None if self._env_factory is None else build_env(self._env_factory, self.envs_per_worker, seed or 0)

    def _take_in(self, reports: Sequence[Report], callback: BaseCallback) -> bool:
        """Count the steps of segments and show them to callbacks and log.

        :return: False if a callback asks to stop
        """
        callback.on_rollout_start()
        go_on = self._show(reports, callback)
        callback.on_rollout_end()
        return go_on

    def _show(self, reports: Sequence[Report], callback: BaseCallback, to_the_end: bool = False) -> bool:
        """The steps of segments.

        :param to_the_end: all of them, also after a callback asks to stop
        """
        go_on = True
        for rewards, dones, infos in (step for report in reports for step in report.steps):
            self.num_timesteps += len(rewards)
            callback.update_locals(locals())
            go_on = callback.on_step() and go_on
            if not (go_on or to_the_end):
                return False
            self._update_info_buffer(infos, dones)
        for name, value in (item for report in reports for item in report.statistics.items()):
            self.logger.record_mean(name, value)
        return go_on

    def _worker_seed(self) -> int:
        """What the workers' seeds are counted from."""
        seed = self.continued_seed()
        return secrets.randbelow(2**31) if seed is None else seed

    def _learn_with_workers(
        self, job: Job, n_results: int, total_timesteps: int, callback: BaseCallback, log_interval: int, seed: int
    ) -> None:
        """Publish weights, take what workers made of them, learn from it, and so on.

        :param n_results: that an update learns from
        """
        learned, n_workers = self.num_timesteps, self.workers or available_processors()
        waited, since = 0.0, time.perf_counter()
        marked = since
        self.guard.begin()
        try:
            with start_fleet(self.launcher, job, n_workers, self.min_workers, seed) as fleet:
                fleet.publish(weights_of(self.policy), self._current_progress_remaining)
                results = fleet.results()
                for update in itertools.count(1):
                    if self.num_timesteps >= total_timesteps:
                        break
                    begin = time.perf_counter()
                    batch = list(itertools.islice(results, n_results))
                    waited += time.perf_counter() - begin
                    if not self._take_in([result.report for result in batch], callback):
                        break
                    # The last segments may reach beyond the end of the training, where no schedule is defined.
                    self._update_current_progress_remaining(min(self.num_timesteps, total_timesteps), total_timesteps)
                    for result in batch:
                        self.logger.record_mean("time/weights_age", fleet.version - result.version)
                    if self._update(batch, fleet.version):
                        self._n_updates += 1
                        fleet.publish(weights_of(self.policy), self._current_progress_remaining)
                    learned, now = self.num_timesteps, time.perf_counter()
                    if now - marked > REFRESH_SECONDS:
                        self.guard.mark()
                        marked = now
                    if log_interval is not None and update % log_interval == 0:
                        self.logger.record("time/learner_idle", waited / (now - since))
                        waited, since = 0.0, now
                        self.logger.record("train/skipped_updates", self.guard.skipped)
                        self.logger.record("time/workers", fleet.alive)
                        self.logger.record("time/worker_restarts", fleet.restarts)
                        self.dump_logs(update)
        finally:
            self.num_timesteps = learned  # and not what was played without coming to an update
        require_finite_weights(self.policy)

    def _update(self, results: Sequence[Result], version: int) -> bool:
        """Learn from what workers did.

        :param version: of the weights
        :return: whether they have changed
        :raises Diverged: if too much of it was not finite
        """
        raise NotImplementedError

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log, after a number of updates in this call of ``learn``."""
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self._update_learning_rate(self.policy.optimizer)  # logs it; workers of A3C set it for themselves
        OnPolicyAlgorithm.dump_logs(cast(Any, self), iteration)

    def set_env(self, env: str | EnvFactory, force_reset: bool = True) -> None:  # type: ignore[override]
        """Learn in another environment with the same spaces: an id, or a function (n_envs, seed) -> VecEnv. Workers
        always begin with new episodes."""
        factory = env_factory(env, self.env_kwargs if isinstance(env, str) else None)
        self.n_envs = self.envs_per_worker
        previous = self.env
        super().set_env(build_env(factory, self.envs_per_worker, self.seed or 0), force_reset)
        if previous is not None:
            previous.close()
        self._env_factory = factory

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | pathlib.Path | io.BufferedIOBase,
        env: str | EnvFactory | None = None,
        device: torch.device | str = "auto",
        **kwargs: Any,
    ) -> Self:
        """Load a saved model, as ``load`` of any SB3 algorithm does.

        :param env: what to learn in, as for ``set_env``; None: only predict, or ``set_env`` later
        :param kwargs: further arguments of SB3's ``load``, and attributes to change, such as ``workers=4``
        """
        model = super().load(path, None, device, **kwargs)
        if env is not None:
            model.set_env(env)
        return model

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []
