"""What a worker of IMPALA does: play unrolls, each from where the last one ended."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..buffer import SequenceBuffer
from ..collector import collect
from ..cores import State
from ..distributed.fleet import Weights, load_weights
from ..finite import Diverged
from ..messages import Report, played
from ..policy import MemoryActorCriticPolicy
from ..spaces import map_obs
from ..worker_envs import EnvFactory, build_env


class Unroll(NamedTuple):
    """T steps of N environments: in arrays, which Ray moves without a copy; where they are learned from, in tensors."""

    obs: Any  # [T + 1, N, ...], as the environments gave them, those behind the last step included
    starts: Any  # [T + 1, N], true where an observation is the first of an episode
    actions: Any  # [T, N, ...]
    log_probs: Any  # [T, N], when the actions were taken
    rewards: Any  # [T, N], clipped, with the value of the rest of an episode that a time limit cut
    action_masks: Any  # [T, N, M], true where a choice was allowed; None: all were
    state: Any  # of the core before the first step, each [N, ...]


class RolloutJob(NamedTuple):
    """What all workers are given alike. The attributes of ``IMPALA`` have the same names."""

    policy: MemoryActorCriticPolicy
    precision: Any
    env_factory: EnvFactory
    n_envs: int
    t_max: int
    gamma: float
    clip_reward: float | None

    def worker(self, seed: int) -> RolloutWorker:
        return RolloutWorker(self, seed)


class RolloutWorker:
    """Plays with a policy of its own on the CPU, and carries the memory from unroll to unroll."""

    def __init__(self, job: RolloutJob, seed: int) -> None:
        self._job, self._policy = job, job.policy
        self._policy.set_precision(job.precision)  # which is up to the hardware
        self._env = build_env(job.env_factory, job.n_envs, seed)
        self._buffer = SequenceBuffer(job.t_max, job.n_envs, job.t_max, self._policy.core, self._policy.device)
        # Observations, starts, memory.
        self._place = self._env.reset(), np.ones(job.n_envs, dtype=bool), self._new_memory()

    def _new_memory(self) -> State:
        with torch.no_grad():
            return self._policy.initial_state(self._job.n_envs)

    def work(self, weights: Weights, progress_remaining: float) -> tuple[Report, Unroll | None]:
        """Play an unroll.

        :return: its report and content; where the policy computes nothing finite, a fault and None
        :raises FloatingPointError: if an environment gives numbers that are not finite
        """
        job, buffer, steps, seen = self._job, self._buffer, [], []
        load_weights(self._policy, weights)
        state = tuple(leaf.detach().numpy().copy() for leaf in self._place[2])
        # Around all steps, so that weights are cast to the features' bf16 once per unroll instead of once per step.
        try:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                for step in collect(self._policy, self._env, buffer, *self._place, job.gamma, job.clip_reward):
                    self._place = step.new_obs, step.dones, step.next_state
                    seen.append(map_obs(_as_learned, step.obs_tensor))
                    steps.append(played(step))
        except Diverged as error:
            self._place = *self._place[:2], self._new_memory()
            return Report([], {}, str(error)), None
        seen.append(map_obs(_as_learned, self._place[0]))
        unroll = Unroll(
            obs=map_obs(lambda *obs: np.stack(obs), *seen),
            starts=np.concatenate([buffer.starts.numpy(), self._place[1][None]]),
            actions=buffer.actions.numpy().copy(),
            log_probs=buffer.log_probs.numpy().copy(),
            rewards=buffer.rewards.numpy().copy(),
            action_masks=None if buffer.action_masks is None else buffer.action_masks.numpy().copy(),
            state=state,
        )
        return Report(steps, {}), unroll

    def close(self) -> None:
        self._env.close()


def _as_learned(obs: Tensor | np.ndarray) -> np.ndarray:
    """A copy of observations [N, ...]: images as they are, which takes the least room, and numbers in float32."""
    array = np.asarray(obs)
    return array.astype(np.float32 if array.dtype == np.float64 else array.dtype)
