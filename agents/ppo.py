"""Recurrent proximal policy optimisation (Schulman et al. 2017) for any memory core, as an SB3 algorithm."""

from __future__ import annotations

import io
import os
import pathlib
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from ..common.options import Count, Fraction, Natural, NonNegative, Positive, PositiveRate, Rate
from ..envs import make_vec_env
from .allocator import keep_freed_memory
from .base import MemoryAlgorithm
from .buffer import SequenceBuffer, minibatch_shape
from .collector import collect, threads_of_rollout, to_tensors
from .cores import State
from .finite import Diverged, has_finite_weights, is_finite
from .guard import not_finite
from .parts import Map, mapping, n_parts, twins
from .policy import MemoryActorCriticPolicy
from .ppo_loss import Loss, Settings, no_loss, ppo_loss
from .precision import Precision
from .resume import Moment, return_to_place
from .schedule import as_schedule
from .spaces import require_spaces


class MemoryPPO(MemoryAlgorithm, OnPolicyAlgorithm):
    """PPO whose minibatches are whole sequences and whose policy carries any registered memory core.

    A rollout of ``n_steps`` in each environment is cut into sequences of ``bptt_length`` steps. Gradients flow
    through a whole sequence and stop at its start, where the state recorded during the rollout is taken up. Features
    of all steps of a minibatch are computed in one call, the core runs over it once, and both losses reach it.

    What is not explained here is as in ``MemoryAlgorithm``.

    :param env: environment, vector environment, or an id, of which ``make_vec_env`` makes one environment
    :param learning_rate: Adam's step size
    :param n_steps: steps per environment and rollout
    :param batch_size: transitions per minibatch: a multiple of bptt_length that divides n_steps times the number of
        environments; null (None): a quarter of the rollout, or the next larger part that is made of whole sequences
    :param bptt_length: steps that gradients travel back in time, a divisor of n_steps; null (None): n_steps, but of a
        single environment, whose rollout would be one minibatch, a quarter (or half) of n_steps if that is 16 or more
    :param n_epochs: passes over each rollout
    :param clip_range: clipping of the probability ratio
    :param clip_range_vf: clipping of the change of the value; null (None): none
    :param normalize_advantage: bring the advantages of each minibatch to zero mean and unit variance
    :param vf_coef: weight of the value loss, taken in units of the variance of the rollout's returns where that
        exceeds 1: one core serves both losses, and large returns would drown the policy's gradient
    :param max_grad_norm: gradients are scaled down to this norm
    :param target_kl: stop the passes over a rollout once the policy has moved 1.5 times this far; null (None): never
    :param seed: of policy, actions and environments; None: another one each time
    :raises ValueError: if an argument is out of range, a space is one that no policy can have, or sequences and
        minibatches do not divide the rollout
    """

    policy: MemoryActorCriticPolicy

    def __init__(
        self,
        policy: str | type[MemoryActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: Rate = 3e-4,
        n_steps: Count = 128,
        batch_size: Count | None = None,
        bptt_length: Count | None = None,
        n_epochs: Count = 4,
        gamma: Fraction = 0.99,
        gae_lambda: Fraction = 0.95,
        clip_range: PositiveRate = 0.2,
        clip_range_vf: PositiveRate | None = None,
        normalize_advantage: bool = True,
        ent_coef: Rate = 0.0,
        vf_coef: NonNegative = 0.5,
        max_grad_norm: Positive = 0.5,
        target_kl: Positive | None = None,
        clip_reward: Positive | None = None,
        max_skipped: Count | None = 10,
        precision: Precision = "auto",
        stats_window_size: Count = 100,
        tensorboard_log: str | os.PathLike[str] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: Natural | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            _make_env(env, seed),
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,  # type: ignore[arg-type]
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,  # type: ignore[arg-type]
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.algorithm = "MemoryPPO"
        self.batch_size = batch_size
        self.bptt_length = bptt_length
        self.n_epochs = n_epochs
        self.clip_range = clip_range
        self.clip_range_vf = clip_range_vf
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        self.clip_reward = clip_reward
        self.max_skipped = max_skipped
        self.precision = precision
        self._saved_n_envs: int | None = None
        self._state: State = None
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        # Here and not in `__init__`, so that what `load` changes is checked too.
        self._require_setup(MemoryPPO)
        try:
            length, _ = minibatch_shape(self.n_steps, self.n_envs, self.bptt_length, self.batch_size)
        except ValueError:
            if self._saved_n_envs in (None, self.n_envs):
                raise
            self.batch_size = None  # it was chosen for another number of environments
            length, _ = minibatch_shape(self.n_steps, self.n_envs, self.bptt_length, None)
        self._saved_n_envs = self.n_envs
        if self.device.type == "cpu":
            keep_freed_memory()
        self._set_up_policy(**self.policy_kwargs)
        self.buffer = SequenceBuffer(self.n_steps, self.n_envs, length, self.policy.core, self.device)
        self.rollout_buffer = self.buffer  # type: ignore[assignment]  # the name under which SB3's `learn` passes it on

    # ---------------------------------------------------------------- collection

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: SequenceBuffer, n_rollout_steps: int
    ) -> bool:
        """Fill the buffer with ``n_rollout_steps`` steps of each environment.

        Steps of a rollout that comes to no end are not learned from, and ``num_timesteps`` does not keep them.

        :return: False if a callback asked to stop
        :raises ValueError: if ``n_steps`` or ``bptt_length`` has been changed since the buffer was made
        :raises FloatingPointError: if an environment gives numbers that are not finite
        """
        assert self._last_obs is not None and self._last_episode_starts is not None
        if n_rollout_steps != rollout_buffer.n_steps or self.bptt_length not in (None, rollout_buffer.length):
            raise ValueError(
                "n_steps and bptt_length cannot be changed but by load(path, n_steps=..., bptt_length=...)"
            )
        callback.on_rollout_start()
        if self._state is None or len(self._state[0]) != env.num_envs:
            with torch.no_grad():
                self._state = self.policy.initial_state(env.num_envs)
        self._moment = self._take_moment()
        self.guard.begin()
        begun_at, complete = self.num_timesteps, False
        place = self._last_obs, self._last_episode_starts, self._state
        try:
            with threads_of_rollout(env.num_envs):
                for step in collect(self.policy, env, rollout_buffer, *place, self.gamma, self.clip_reward):
                    self.num_timesteps += env.num_envs
                    callback.update_locals(locals() | step._asdict())  # callbacks know the variables of SB3's loop
                    go_on = callback.on_step()
                    # All at once: whoever is interrupted and goes on does so from the same step.
                    self._last_obs, self._last_episode_starts, self._state = step.new_obs, step.dones, step.next_state
                    if not go_on:
                        return False
                    self._update_info_buffer(step.infos, step.dones)
            complete = True
        except Diverged as error:
            self.guard.go_back(str(error))
        finally:
            if not complete:
                self.num_timesteps = begun_at
        if not complete:  # once more, with the weights that the guard has gone back to
            self._state = self._moment = None
            return self.collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        rollout_buffer.compute_advantages(self.gamma, self.gae_lambda)
        callback.update_locals(locals() | {"n_steps": n_rollout_steps})
        callback.on_rollout_end()
        return True

    # ---------------------------------------------------------------- update

    def train(self) -> None:
        """Update the policy with the rollout just collected.

        :raises Diverged: if loss, gradients or weights are not finite, and ``max_skipped`` or going back to earlier
            weights does not help
        """
        self.policy.set_training_mode(True)
        # The last rollout may reach beyond the end of the training, where no schedule is defined.
        remaining = self._current_progress_remaining = max(0.0, self._current_progress_remaining)
        self._update_learning_rate(self.policy.optimizer)
        # Read anew for every rollout: SB3's callbacks change them.
        clip_range, ent_coef = as_schedule(self.clip_range)(remaining), as_schedule(self.ent_coef)(remaining)
        clip_range_vf = None if self.clip_range_vf is None else as_schedule(self.clip_range_vf)(remaining)
        settings = Settings(
            clip_range,
            clip_range_vf,
            ent_coef,
            vf_coef=self.vf_coef / max(1.0, self.buffer.returns.var(correction=0).item()),
        )
        logged = self._passes(settings)
        if not has_finite_weights(self.policy):
            self.guard.go_back("the weights are not finite any more: a smaller learning_rate may help")
        self.guard.end()
        self._moment = None

        for name, values in logged.items():
            if values:
                self.logger.record(name, torch.stack(values).mean().item())
        self.logger.record("train/skipped_updates", self.guard.skipped)
        self.logger.record(
            "train/explained_variance",
            explained_variance(self.buffer.values.flatten().cpu().numpy(), self.buffer.returns.flatten().cpu().numpy()),
        )
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", self.policy.log_std.exp().mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip_range)
        if clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", clip_range_vf)
        self.logger.record("train/ent_coef", ent_coef)
        assert self._last_obs is not None and self._last_episode_starts is not None
        obs, starts = to_tensors(self.policy, self._last_obs, self._last_episode_starts)
        for name, value in self.policy.memory_statistics(obs, self._state, starts).items():
            self.logger.record(f"memory/{name}", value.item())

    def _passes(self, settings: Settings) -> dict[str, list[Tensor]]:
        """Pass ``n_epochs`` times over the rollout.

        :return: what was measured at each update, by its name in the log
        """
        logged: dict[str, list[Tensor]] = defaultdict(list)
        _, sequences = minibatch_shape(self.buffer.n_steps, self.n_envs, self.buffer.length, self.batch_size)
        own = len(self._own_part(torch.arange(sequences)))
        parts = n_parts(self.policy, own * self.buffer.length)
        policies = twins(self.policy, min(parts or 1, own))
        with mapping(parts) as map_:
            for _ in range(self.n_epochs):
                logged["train/approx_kl"].clear()  # SB3 logs those of the last pass
                for columns in self.buffer.minibatches(sequences):
                    losses = self._losses(settings, columns, policies, map_)
                    loss = self._whole(Loss(*(torch.stack(same).sum(0) for same in zip(*losses, strict=True))))
                    measured = {f"train/{name}": value.detach() for name, value in loss._asdict().items()}
                    too_far = self.target_kl is not None and bool(loss.approx_kl > 1.5 * self.target_kl)
                    finite = is_finite(loss.loss)
                    if finite and not too_far:
                        norm, measured["memory/core_grad_norm"] = self._backward(losses, map_)
                        finite = is_finite(norm)
                    if finite:
                        for name, value in measured.items():
                            logged[name].append(value)
                    elif not self.guard.skip(partial(self._not_finite, columns, loss)):
                        continue
                    if too_far or not finite:  # the policy is not the one any more that this rollout is to teach
                        self._n_updates += 1
                        return logged
                    nn.utils.clip_grads_with_norm_(self.policy.parameters(), self.max_grad_norm, norm)
                    self.policy.optimizer.step()
                    self.guard.take()
                self._n_updates += 1
        return logged

    def _losses(
        self, settings: Settings, columns: Tensor, policies: Sequence[MemoryActorCriticPolicy], map_: Map
    ) -> list[Loss]:
        """Of the minibatch in these columns, one for each of the policies, which share it; they add up."""
        advantages = self._advantages(columns)
        whole, parts = advantages.numel(), len(policies)
        own, advantages = self._own_part(columns), self._own_part(advantages)
        chunks = zip(policies, own.tensor_split(parts), advantages.tensor_split(parts, dim=1), strict=True)
        try:
            return map_(partial(self._loss, settings, whole), list(chunks))
        except Diverged:  # values or probabilities are not finite, and so is what they would add to the loss
            return [no_loss(self.device)]

    def _backward(self, losses: Sequence[Loss], map_: Map) -> tuple[Tensor, Tensor]:
        """Compute gradients.

        :return: their norm, and that of the core's
        """
        parameters = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        gradients = map_(lambda part: torch.autograd.grad(part.loss, parameters, allow_unused=True), losses)
        for parameter, *of_parts in zip(parameters, *gradients, strict=True):
            parameter.grad = _sum_like(parameter, of_parts)
        self._add_gradients()
        whole, core = (
            nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
            for network in (self.policy, self.policy.core)
        )
        return whole, core

    def _own_part(self, columns: Tensor) -> Tensor:
        """Which of a minibatch's columns [..., S] this process learns from: all, where there are no others."""
        return columns

    def _whole(self, part: Loss) -> Loss:
        """What was measured of a minibatch, from what was of the part that this process learns from."""
        return part

    def _add_gradients(self) -> None:
        """Add the gradients of the other processes' parts to those of the policy."""

    def _advantages(self, columns: Tensor) -> Tensor:
        """Of the minibatch in these columns, [L, S]."""
        advantages = self.buffer.advantages.index_select(1, columns)
        if self.normalize_advantage and advantages.numel() > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        return advantages

    def _loss(self, settings: Settings, whole: int, part: tuple[MemoryActorCriticPolicy, Tensor, Tensor]) -> Loss:
        """What a part of a minibatch adds to its means.

        :param whole: transitions in the whole minibatch
        :param part: the policy, columns [S] of the part's sequences in the buffer, and their advantages [L, S]
        """
        policy, columns, advantages = part
        batch = self.buffer.sequences(columns)
        values, log_prob, entropy, _ = policy.evaluate_sequence(
            batch.obs, batch.actions, batch.state, batch.starts, batch.action_masks
        )
        evaluated = values, log_prob, entropy
        return ppo_loss(settings, whole, evaluated, batch.values, batch.log_probs, advantages, batch.returns)

    def _not_finite(self, columns: Tensor, loss: Loss) -> str:
        """What was not finite first in the update from the minibatch in these columns."""
        batch = self.buffer.sequences(columns)
        known = {name: value for name, value in batch._asdict().items() if name != "starts"}
        inputs = batch.obs, batch.actions, batch.state, batch.starts, batch.action_masks
        return not_finite(self.policy, known, partial(self.policy.evaluate_sequence, *inputs), loss.parts)

    def _place(self) -> tuple[VecEnv | None, Any]:
        place = self._last_obs, self._last_episode_starts, self._state
        return self.env, None if self._last_obs is None else place

    def _take_up_place(self, moment: Moment) -> bool:
        assert self.env is not None
        place = return_to_place(moment, self.env, self.policy.initial_state(1))
        if place is not None:
            self._last_obs, self._last_episode_starts, self._state = place
        return place is not None

    # ---------------------------------------------------------------- SB3 plumbing

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "MemoryPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for ``total_timesteps`` agent steps, summed over environments; as in any SB3 algorithm.

        :raises ValueError: if there is no environment
        """
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | str | None = None,
        device: torch.device | str = "auto",
        **kwargs: Any,
    ) -> Self:
        """Load a saved model, as ``load`` of any SB3 algorithm does.

        A saved ``batch_size`` that does not fit the number of environments gives way to the default one. Learning goes
        on with new episodes, whatever ``force_reset`` is, unless ``take_up(model.saved_at)`` comes before it.

        :param env: what to learn in, as for ``set_env``; None: only predict, or ``set_env`` later
        :param kwargs: further arguments of SB3's ``load``; ``trusted``, as in ``relmem.agents.load``; and attributes to
            change, such as ``n_steps=64``
        """
        if "batch_size" in kwargs:
            kwargs["_saved_n_envs"] = None  # it is to be held to what is asked for here
        by_id = isinstance(env, str)
        model = super().load(path, None if by_id else env, device, **kwargs)  # type: ignore[arg-type]
        if by_id:
            model.set_env(env)  # type: ignore[arg-type]
        return model

    def set_env(self, env: GymEnv | str, force_reset: bool = True) -> None:
        """Learn in another environment with the same spaces: an environment, a vector environment, or an id, of which
        as many are made as there were."""
        super().set_env(_make_env(env, self.continued_seed(), self.n_envs), force_reset)


def _sum_like(parameter: Tensor, gradients: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of gradients in their order, whichever thread was the first, laid out as the parameter is; None where
    there is none."""
    known = [gradient for gradient in gradients if gradient is not None]
    if not known:
        return None
    total = torch.empty_like(parameter).copy_(known[0])
    for gradient in known[1:]:
        total += gradient
    return total


def _make_env(env: GymEnv | str | None, seed: int | None, n_envs: int = 1) -> Any:
    if isinstance(env, str):
        env = make_vec_env(env, n_envs, seed=seed)
    if env is not None:
        require_spaces(env.observation_space, env.action_space)  # before SB3 fails on them
    return env
