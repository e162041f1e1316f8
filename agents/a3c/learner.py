"""What one worker does: play a segment in its environments, and turn it into a gradient."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from ...common.generators import set_generators
from ..buffer import SequenceBuffer
from ..collector import collect, to_tensors
from ..finite import Diverged, is_finite
from ..guard import not_finite
from ..messages import PlayedStep, played
from ..policy import MemoryActorCriticPolicy
from ..resume import Moment, return_to_place, take_moment
from .shared import trained


class Settings(NamedTuple):
    """The attributes of ``A3C`` that concern a worker's update, by their names there."""

    t_max: int
    gamma: float
    gae_lambda: float
    vf_coef: float
    ent_coef: float | str | Schedule
    lr_schedule: Schedule
    max_grad_norm: float | None
    clip_reward: float | None


class SegmentLearner:
    """Plays segments of ``t_max`` steps with a policy of its own and computes their gradients.

    The memory is carried from segment to segment, across updates of the parameters; gradients stop at its start.
    """

    def __init__(self, policy: MemoryActorCriticPolicy, env: VecEnv, settings: Settings) -> None:
        self.policy = policy
        self.env = env
        self.settings = settings
        self.parameters = trained(policy.parameters())
        self.buffer = SequenceBuffer(settings.t_max, env.num_envs, settings.t_max, policy.core, policy.device)
        with torch.no_grad():
            state = policy.initial_state(env.num_envs)
        self._place = env.reset(), np.ones(env.num_envs, dtype=bool), state  # observations, starts, memory

    def moment(self) -> Moment:
        """Where this learner is, between two segments."""
        return take_moment(self.env, self._place)

    def take_up(self, moment: Moment) -> None:
        """Go on where another learner was; where its environments could not be taken down, new episodes have begun."""
        place = return_to_place(moment, self.env, self._place[2])
        if place is not None:
            self._place = place
        set_generators(moment.get("generators"))

    def forget(self) -> None:
        """Let the memory begin anew, after weights that were of no use."""
        with torch.no_grad():
            self._place = *self._place[:2], self.policy.initial_state(self.env.num_envs)

    def play(self) -> list[PlayedStep]:
        """Play a segment into the buffer, and return its steps for the report.

        :raises FloatingPointError: if an environment gives numbers that are not finite
        """
        settings, buffer, steps = self.settings, self.buffer, []
        # Around all steps, so that weights are cast to the features' bf16 once per segment instead of once per step.
        with torch.no_grad(), torch.autocast(self.policy.device.type, enabled=False):
            for step in collect(self.policy, self.env, buffer, *self._place, settings.gamma, settings.clip_reward):
                self._place = step.new_obs, step.dones, step.next_state
                steps.append(played(step))

        # The value learns the n-step return, as in the A3C paper; the policy learns from the smoother estimate (GAE).
        buffer.compute_advantages(settings.gamma, gae_lambda=1.0)
        self._returns = buffer.returns.clone()  # [T, B]
        buffer.compute_advantages(settings.gamma, settings.gae_lambda)
        return steps

    def gradients(self, ent_coef: float) -> tuple[list[Tensor | None], dict[str, float]]:
        """Gradient of the loss of the segment in the buffer.

        The loss is summed over the steps of the segment and averaged over its environments, so that ``t_max`` and
        Adam's epsilon mean what they do in A3C with one environment per worker, however many there are.

        :param ent_coef: weight of the entropy bonus
        :return: one gradient for each parameter, None where the loss does not depend on it; statistics for the log
        :raises Diverged: if the loss or its gradient is not finite, before it could spoil what is shared
        """
        policy, buffer = self.policy, self.buffer
        policy.set_training_mode(True)
        # The whole segment at once is cheaper than to keep the graph of the single steps, even with one environment.
        values, log_prob, entropy, _ = policy.evaluate_sequence(
            buffer.obs, buffer.actions, buffer.state, buffer.starts, buffer.action_masks
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
        coming_obs, last_dones, state = self._place
        obs, starts = to_tensors(policy, coming_obs, last_dones)
        memory = policy.memory_statistics(obs, state, starts)
        statistics |= {f"memory/{name}": value for name, value in memory.items()}
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if not is_finite(loss, norm):
            raise Diverged(self._not_finite({"policy loss": policy_loss, "value loss": value_loss, "loss": loss}))
        nn.utils.clip_grads_with_norm_(self.parameters, self.settings.max_grad_norm or math.inf, norm)
        statistics["train/grad_norm"] = norm
        return [p.grad for p in self.parameters], {name: value.item() for name, value in statistics.items()}

    def _not_finite(self, parts: dict[str, Tensor]) -> str:
        """What was not finite first in the update from the segment in the buffer."""
        buffer = self.buffer
        known = {"observations": buffer.obs, "returns": self._returns, "advantages": buffer.advantages}
        given = buffer.obs, buffer.actions, buffer.state, buffer.starts
        return not_finite(self.policy, known, lambda: self.policy.evaluate_sequence(*given), parts)
