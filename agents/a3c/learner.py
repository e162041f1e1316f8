"""What one worker does: play a segment in its environments, and turn it into a gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from ..buffer import SequenceBuffer
from ..interaction import act, learned_rewards, require_finite, to_env
from ..policy import MemoryActorCriticPolicy

KEPT_INFO = ("episode", "is_success", "TimeLimit.truncated")


@dataclass(frozen=True)
class Settings:
    """The arguments of ``A3C`` that concern a worker's update."""

    t_max: int
    gamma: float
    gae_lambda: float
    vf_coef: float
    ent_coef: Schedule
    learning_rate: Schedule
    max_grad_norm: float | None
    clip_reward: float | None


class Report(NamedTuple):
    """What a worker tells the main process about one segment of T steps in B environments."""

    rewards: np.ndarray  # [T, B], as the environments gave them
    dones: np.ndarray  # [T, B]
    infos: list[dict[int, dict[str, Any]]]  # for each step, by environment: what is known of episodes that ended
    statistics: dict[str, float]  # by name in the log

    def steps(self) -> Iterator[tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]]:
        """Rewards [B], dones [B] and infos of each step, as a vector environment returns them."""
        for rewards, dones, infos in zip(self.rewards, self.dones, self.infos, strict=True):
            yield rewards, dones, [infos.get(i, {}) for i in range(len(dones))]


class SegmentLearner:
    """Plays segments of ``t_max`` steps with a policy of its own and computes their gradients.

    The memory is carried from segment to segment, across updates of the parameters; gradients stop at its start.

    :param policy: this worker's copy
    :param env: this worker's environments
    :param settings: of the update
    """

    def __init__(self, policy: MemoryActorCriticPolicy, env: VecEnv, settings: Settings) -> None:
        self.policy = policy
        self.env = env
        self.settings = settings
        self.parameters = list(policy.parameters())
        self.buffer = SequenceBuffer(
            settings.t_max,
            env.num_envs,
            settings.t_max,
            policy.observation_space,
            policy.action_space,
            policy.core,
            policy.device,
        )
        self._obs = obs_as_tensor(env.reset(), policy.device)  # type: ignore[arg-type]
        self._starts = torch.ones(env.num_envs, dtype=torch.bool)
        with torch.no_grad():
            self._state = policy.initial_state(env.num_envs)
        self._returns = torch.zeros(settings.t_max, env.num_envs)

    @torch.no_grad()
    def play(self) -> tuple[np.ndarray, np.ndarray, list[dict[int, dict[str, Any]]]]:
        """Play a segment into the buffer.

        :return: rewards [T, B], dones [T, B] and infos of ended episodes, for the report
        """
        settings, policy, env, buffer = self.settings, self.policy, self.env, self.buffer
        policy.set_training_mode(False)
        all_rewards = np.zeros((settings.t_max, env.num_envs), dtype=np.float32)
        all_dones = np.zeros((settings.t_max, env.num_envs), dtype=bool)
        all_infos: list[dict[int, dict[str, Any]]] = []
        # Around all steps, so that weights are cast to the features' bf16 once per segment instead of once per step.
        with torch.autocast(policy.device.type, enabled=False):
            for t in range(settings.t_max):
                buffer.begin_step(t, self._obs, self._starts, self._state)
                actions, values, log_probs, self._state = act(policy, self._obs, self._state, self._starts)
                obs, rewards, dones, infos = env.step(to_env(policy, actions))
                all_rewards[t], all_dones[t] = rewards, dones
                ended = dones.nonzero()[0].tolist()
                all_infos.append({i: {key: infos[i][key] for key in KEPT_INFO if key in infos[i]} for i in ended})
                learned = learned_rewards(
                    policy, self._state, rewards, dones, infos, settings.gamma, settings.clip_reward
                )
                buffer.end_step(t, actions, values, log_probs, learned)
                self._obs, self._starts = obs_as_tensor(obs, policy.device), torch.as_tensor(dones)  # type: ignore[arg-type]

            last_values = policy.value(self._obs, self._state, self._starts)

        # The value learns the n-step return, as in the A3C paper; the policy learns from the smoother estimate (GAE).
        buffer.compute_advantages(last_values, self._starts, settings.gamma, gae_lambda=1.0)
        self._returns.copy_(buffer.returns)
        buffer.compute_advantages(last_values, self._starts, settings.gamma, settings.gae_lambda)
        return all_rewards, all_dones, all_infos

    def gradients(self, ent_coef: float) -> tuple[list[Tensor | None], dict[str, float]]:
        """Gradient of the loss of the segment in the buffer.

        The loss is summed over the steps of the segment and averaged over its environments, so that ``t_max`` and
        Adam's epsilon mean what they do in A3C with one environment per worker, however many there are.

        :param ent_coef: weight of the entropy bonus
        :return: one gradient for each parameter, None where the loss does not depend on it; statistics for the log
        :raises FloatingPointError: if the loss or its gradient is not finite, before it could spoil what is shared
        """
        policy, buffer = self.policy, self.buffer
        policy.set_training_mode(True)
        # The whole segment at once is cheaper than to keep the graph of the single steps, even with one environment.
        values, log_prob, entropy, _ = policy.evaluate_sequence(
            buffer.obs, buffer.actions, buffer.state, buffer.starts
        )  # each [T, B]
        policy_loss = -(buffer.advantages * log_prob).mean()
        value_loss = F.mse_loss(values, self._returns)
        entropy_loss = log_prob.mean() if entropy is None else -entropy.mean()
        loss = policy_loss + self.settings.vf_coef * 0.5 * value_loss + ent_coef * entropy_loss
        policy.zero_grad(set_to_none=True)
        (len(values) * loss).backward()

        core_gradients = [p.grad for p in policy.core.parameters() if p.grad is not None]
        statistics = {
            "train/policy_gradient_loss": policy_loss,
            "train/value_loss": value_loss,
            "train/entropy_loss": entropy_loss,
            "memory/core_grad_norm": nn.utils.get_total_norm(core_gradients),
        }
        memory = policy.memory_statistics(self._obs, self._state, self._starts)
        statistics |= {f"memory/{name}": value for name, value in memory.items()}
        limit = math.inf if self.settings.max_grad_norm is None else self.settings.max_grad_norm
        norm = statistics["train/grad_norm"] = nn.utils.clip_grad_norm_(self.parameters, limit)
        require_finite(loss, norm, policy=policy_loss, value=value_loss)
        return [p.grad for p in self.parameters], {name: value.item() for name, value in statistics.items()}
