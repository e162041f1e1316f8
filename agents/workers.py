"""What A3C and IMPALA have in common: environments in workers, and what these report."""

from __future__ import annotations

import io
import pathlib
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, cast

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from .base import MemoryAlgorithm
from .collector import Step
from .worker_envs import EnvFactory, build_env, env_factory

KEPT_INFO = ("episode", "is_success", "TimeLimit.truncated")

PlayedStep = tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]
"""Rewards [B], dones [B] and infos of one step, as the environments gave them; of infos only ``KEPT_INFO``, and only
where an episode ended."""


class Report(NamedTuple):
    """What a worker tells the main process about one segment."""

    steps: list[PlayedStep]
    statistics: dict[str, float]  # by name in the log
    fault: str = ""  # why nothing was learned from it


def played(step: Step) -> PlayedStep:
    """What is reported of a step."""
    kept = [
        {key: info[key] for key in KEPT_INFO if key in info} if done else {}
        for info, done in zip(step.infos, step.dones, strict=True)
    ]
    return step.rewards, step.dones, kept


def pickled(job: object) -> bytes:
    """What workers are given, by value.

    :raises ValueError: if it cannot be sent
    """
    try:
        return cast(bytes, cloudpickle.dumps(job))
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"the policy, the schedules or the environment factory cannot be sent to workers: {error}"
        ) from error


class WorkerAlgorithm(MemoryAlgorithm):
    """An algorithm whose workers build environments of their own."""

    envs_per_worker: int
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

    def _show(self, reports: Sequence[Report], callback: BaseCallback) -> bool:
        """All steps of segments, which have been played, whatever a callback asks for meanwhile."""
        go_on = True
        for rewards, dones, infos in (step for report in reports for step in report.steps):
            self.num_timesteps += len(rewards)
            callback.update_locals(locals())
            go_on = callback.on_step() and go_on
            self._update_info_buffer(infos, dones)
        for name, value in (item for report in reports for item in report.statistics.items()):
            self.logger.record_mean(name, value)
        return go_on

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
