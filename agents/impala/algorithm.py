"""Importance-weighted actor-learner (IMPALA, Espeholt et al. 2018) for any memory core, as an SB3 algorithm."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import cloudpickle
import numpy as np
import torch
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import Tensor, nn

from ...common.options import Count, Fraction, Natural, NonNegative, Positive, PositiveRate, Rate, require_options
from ..cores import State
from ..distributed import Launcher
from ..distributed.fleet import Result
from ..finite import Diverged, is_finite
from ..guard import not_finite
from ..messages import pickled
from ..policy import MemoryActorCriticPolicy
from ..ppo_loss import Loss, Settings, no_loss, ppo_loss
from ..precision import Precision
from ..schedule import as_schedule
from ..spaces import map_obs
from ..vtrace import vtrace
from ..worker_envs import EnvFactory
from ..workers import WorkerAlgorithm
from .rollout import RolloutJob, Unroll


class IMPALA(WorkerAlgorithm):
    """Workers that play unrolls with weights that may be a few updates old, and one learner that corrects for it.

    A worker plays ``t_max`` steps in each of its environments and goes on with the newest weights, its memory carried
    along. The learner takes ``unrolls`` of them at a time, runs the core over them from the memory that they began
    with, and makes one update: the losses are those of ``MemoryPPO``, with advantages and targets from V-trace.

    With ``launcher="local"`` workers take turns in this process, which is reproducible. With "ray" each is a Ray actor
    with a processor of its own, on the cluster that ``ray.init`` has connected to, or else on this machine; a worker
    that is lost starts again with new episodes (docs/scale.md).

    Callbacks run in the main process, once for each step of a worker's environments, just before the update that learns
    from it. What is not explained here is as in ``MemoryAlgorithm``.

    :param env: id of a registered environment, or a function (n_envs, seed) -> VecEnv; each worker builds its own
    :param learning_rate: Adam's step size
    :param workers: how many there are
    :param envs_per_worker: environments of each worker, whose actions are computed together
    :param t_max: steps in each environment of an unroll, and steps that gradients travel back in time
    :param unrolls: how many the learner takes at a time
    :param gae_lambda: decay of V-trace's later corrections
    :param rho_max: truncation of V-trace's importance weights
    :param c_max: truncation of the weights of V-trace's later corrections
    :param clip_range: clipping of the probability ratio
    :param normalize_advantage: bring the advantages of each update to zero mean and unit variance
    :param vf_coef: weight of the value loss, taken in units of the variance of the targets where that exceeds 1
    :param max_grad_norm: gradients are scaled down to this norm
    :param launcher: where workers run: local or ray
    :param min_workers: the training ends where fewer of Ray's workers are left, and none comes back within two minutes
    :param env_kwargs: arguments of ``make_vec_env`` to go with an id, such as ``dict(frame_skip=4)``
    :param seed: worker r seeds its environment e with ``seed + r * envs_per_worker + e``
    :param device: of the learner; workers play on CPUs
    :raises ValueError: if an argument is out of range, or the environment is not one that workers could build
    """

    def __init__(
        self,
        policy: str | type[MemoryActorCriticPolicy],
        env: str | EnvFactory | None,
        learning_rate: Rate = 5e-4,
        workers: Count = 2,
        envs_per_worker: Count = 8,
        t_max: Count = 20,
        unrolls: Count = 2,
        gamma: Fraction = 0.99,
        gae_lambda: Fraction = 0.95,
        rho_max: Positive = 1.0,
        c_max: Positive = 1.0,
        clip_range: PositiveRate = 0.2,
        normalize_advantage: bool = True,
        ent_coef: Rate = 0.0,
        vf_coef: NonNegative = 0.5,
        max_grad_norm: Positive = 0.5,
        clip_reward: Positive | None = None,
        max_skipped: Count | None = 10,
        launcher: Launcher = "local",
        min_workers: Count = 1,
        precision: Precision = "auto",
        env_kwargs: dict[str, Any] | None = None,
        stats_window_size: Count = 100,
        tensorboard_log: str | os.PathLike[str] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: Natural | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        require_options(IMPALA, {"envs_per_worker": envs_per_worker, "seed": seed})  # which environments are built with
        self.algorithm = "IMPALA"
        self.workers = workers
        self.envs_per_worker = envs_per_worker
        self.t_max = t_max
        self.unrolls = unrolls
        self.gamma = gamma
        self.gae_lambda = gae_lambda
        self.rho_max = rho_max
        self.c_max = c_max
        self.clip_range = clip_range
        self.normalize_advantage = normalize_advantage
        self.ent_coef = ent_coef
        self.vf_coef = vf_coef
        self.max_grad_norm = max_grad_norm
        self.clip_reward = clip_reward
        self.max_skipped = max_skipped
        self.launcher = launcher
        self.min_workers = min_workers
        self.precision = precision
        super().__init__(
            policy,
            self._take_env(env, env_kwargs, seed),
            learning_rate=learning_rate,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,  # type: ignore[arg-type]
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
        )
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        # Here and not in `__init__`, so that what `load` changes is checked too.
        self._require_setup(IMPALA)
        self._set_up_policy(**self.policy_kwargs)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 10,
        tb_log_name: str = "IMPALA",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for ``total_timesteps`` agent steps, summed over all environments, rounded up to whole updates.

        However it ends, no worker is left behind, and the policy holds what was learned.

        :param callback: called in the main process; ``locals`` hold ``rewards``, ``dones`` and ``infos`` of the step
            (of ``infos`` only what concerns the end of an episode: its statistics, success, time limit)
        :param log_interval: updates between entries in the log
        :raises ValueError: if there is no environment, or policy or environment cannot be sent to another process
        :raises Diverged: if the loss, the gradient or the weights are not finite any more
        :raises FloatingPointError: if an environment of a worker gives numbers that are not finite
        :raises RuntimeError: if a worker fails, or too few are left
        """
        seed = self._worker_seed()  # before the steps are set to zero
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        self._learn_with_workers(self.job(), self.unrolls, total_timesteps, callback, log_interval, seed)
        callback.on_training_end()
        return self

    def job(self) -> RolloutJob:
        """What workers are given."""
        policy = copy.copy(self.policy)
        del policy.optimizer  # of no use to a worker
        assert self._env_factory is not None
        return RolloutJob(
            cloudpickle.loads(pickled(policy)).cpu(),  # which no `deepcopy` can do after an update
            self.precision,
            self._env_factory,
            self.envs_per_worker,
            self.t_max,
            self.gamma,
            self.clip_reward,
        )

    def _update(self, results: Sequence[Result], version: int) -> bool:
        """Learn from unrolls, which are played alongside each other, if the loss and its gradient are finite."""
        if faults := [result.report.fault for result in results if result.report.fault]:
            return self.guard.skip(lambda: faults[0])
        unroll = self._on_device(joined([result.content for result in results]))
        self._update_learning_rate(self.policy.optimizer)
        self.policy.set_training_mode(True)
        loss = self._loss(unroll)
        if finite := is_finite(loss.loss):
            self.policy.optimizer.zero_grad()
            loss.loss.backward()
            norm, core_norm = (
                nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
                for network in (self.policy, self.policy.core)
            )
            finite = is_finite(norm)
        if not finite:
            return self.guard.skip(partial(self._not_finite, unroll, loss))
        nn.utils.clip_grads_with_norm_(self.policy.parameters(), self.max_grad_norm, norm)
        self.policy.optimizer.step()
        self.guard.take()
        measured = {f"train/{name}": value for name, value in loss._asdict().items()}
        measured |= {"train/grad_norm": norm, "memory/core_grad_norm": core_norm}
        for name, value in measured.items():
            self.logger.record_mean(name, value.item())
        return True

    def _loss(self, unroll: Unroll) -> Loss:
        """Of an unroll in tensors: with targets and advantages by V-trace."""
        remaining = self._current_progress_remaining
        clip_range, ent_coef = (as_schedule(value)(remaining) for value in (self.clip_range, self.ent_coef))
        try:
            values, log_prob, entropy, _ = self._evaluated(unroll)  # each [T + 1, B]
        except Diverged:
            return no_loss(self.device)
        log_prob, entropy = log_prob[:-1], None if entropy is None else entropy[:-1]
        discounts = self.gamma * (~unroll.starts[1:]).float()
        estimate, log_ratios = values.detach(), (log_prob - unroll.log_probs).detach()
        targets, advantages = vtrace(
            *(estimate[:-1], estimate[-1], unroll.rewards, discounts, log_ratios),
            *(self.gae_lambda, self.rho_max, self.c_max),
        )
        if self.normalize_advantage and advantages.numel() > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        settings = Settings(
            clip_range, None, ent_coef, vf_coef=self.vf_coef / max(1.0, targets.var(correction=0).item())
        )
        evaluated = values[:-1], log_prob, entropy
        return ppo_loss(settings, targets.numel(), evaluated, estimate[:-1], unroll.log_probs, advantages, targets)

    def _evaluated(self, unroll: Unroll) -> tuple[Tensor, Tensor, Tensor | None, State]:
        """What ``evaluate_sequence`` makes of an unroll, through the observations behind the last step too, whose
        actions are never taken: any will do."""
        actions, masks = torch.cat([unroll.actions, unroll.actions[-1:]]), unroll.action_masks
        if masks is not None:
            masks = torch.cat([masks, torch.ones_like(masks[-1:])])
        return self.policy.evaluate_sequence(unroll.obs, actions, unroll.state, unroll.starts, masks)

    def _not_finite(self, unroll: Unroll, loss: Loss) -> str:
        """What was not finite first in the update from an unroll."""
        known = {name: value for name, value in unroll._asdict().items() if name != "starts"}
        return not_finite(self.policy, known, partial(self._evaluated, unroll), loss.parts)

    def _on_device(self, unroll: Unroll) -> Unroll:
        """The same in tensors, where the learner computes."""

        def to_tensor(array: Any) -> Any:
            return None if array is None else torch.as_tensor(array, device=self.device)

        parts = {name: to_tensor(part) for name, part in unroll._asdict().items() if name not in ("obs", "state")}
        kind = type(self.policy.initial_state(1))
        return unroll._replace(obs=map_obs(to_tensor, unroll.obs), state=kind(*map(to_tensor, unroll.state)), **parts)


def joined(unrolls: Sequence[Unroll]) -> Unroll:
    """Several unrolls beside each other: B environments are those of all."""

    def beside(*arrays: np.ndarray | None) -> Any:
        given = [array for array in arrays if array is not None]
        return np.concatenate(given, axis=1) if given else None

    obs, *parts, states = zip(*unrolls, strict=True)
    starts, actions, log_probs, rewards, masks = (beside(*part) for part in parts)
    state = tuple(map(np.concatenate, zip(*states, strict=True)))
    return Unroll(map_obs(beside, *obs), starts, actions, log_probs, rewards, masks, state)
