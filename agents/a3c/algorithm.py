"""Asynchronous advantage actor-critic (Mnih et al. 2016) for any memory core, as an SB3 algorithm."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self, cast

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import multiprocessing
from torch.optim import Adam, RMSprop

from ...common.options import Count, Fraction, Natural, NonNegative, Positive, Rate, require_options
from ...common.processors import available_processors
from ..distributed import Launcher
from ..distributed.fleet import Result
from ..finite import require_finite_weights
from ..messages import Report, pickled
from ..policy import MemoryActorCriticPolicy
from ..precision import Precision
from ..resume import Moment
from ..worker_envs import EnvFactory
from ..workers import REFRESH_SECONDS, WorkerAlgorithm
from .learner import Settings
from .pool import WorkerPool
from .shared import SharedOptimizer, StepBudget, trained
from .worker import Job, run_worker

OPTIMIZERS: dict[str, dict[str, Any]] = {
    # The settings of the released STM agent, and those of the A3C paper.
    "adam": {"optimizer_class": Adam, "optimizer_kwargs": {"eps": 1e-3, "amsgrad": True, "fused": True}},
    "rmsprop": {"optimizer_class": RMSprop, "optimizer_kwargs": {"alpha": 0.99, "eps": 0.1}},
}


class Learning(NamedTuple):
    """What a call of ``learn`` has at hand."""

    pool: WorkerPool
    shared: SharedOptimizer
    callback: BaseCallback
    log_interval: int | None
    total_timesteps: int


class A3C(WorkerAlgorithm):
    """Worker processes that each play, compute gradients and update one shared policy, none waiting for another.

    A worker copies the shared parameters, plays ``t_max`` steps in each of its environments, computes the gradient of
    that segment and applies it to the shared parameters, whatever the others did meanwhile. It carries the memory from
    one segment to the next; gradients stop at the start of a segment. The policy learns from generalised advantage
    estimates, the value from n-step returns; both are bootstrapped at the end of a segment and where a time
    limit cuts an episode off.

    The released STM agent has ``workers=32, envs_per_worker=1``, ``clip_reward=1`` and otherwise the defaults below;
    configs/pong/stm_released.yaml has its policy too. (Its worker broke off a segment at the end of an episode; here
    the next episode begins within the segment.)

    Callbacks run in the main process, once for each step of a worker's environments, as it reports its segments. The
    policy they see is a copy of the shared one, at most a second old. Workers go on during a callback, until their
    pipes are full; what it changes in the policy is lost (docs/agents.md).

    What is not explained here is as in ``MemoryAlgorithm``.

    :param env: id of a registered environment, or a function (n_envs, seed) -> VecEnv; each worker builds its own
    :param learning_rate: step size
    :param workers: number of processes; null (None): one for each processor core
    :param envs_per_worker: environments of each worker, whose actions are computed together
    :param t_max: steps in each environment between updates, and steps that gradients travel back in time
    :param vf_coef: weight of the value loss, which is half the squared error; the loss is summed over the steps of a
        segment and averaged over its environments
    :param max_grad_norm: gradients are scaled down to this norm; null (None): they are left as they are
    :param optimizer: adam (with amsgrad and epsilon 1e-3) or rmsprop; optimizer_class and optimizer_kwargs among the
        policy's arguments have precedence
    :param worker_timeout: seconds without a segment after which a worker is taken to hang, and replaced by another one
        with new episodes, as those are that die; null (None): never
    :param max_restarts: workers that may be replaced within ten minutes; one more ends the training
    :param launcher: local: processes of this machine that share parameters; ray: Ray actors, whose gradients a learner
        in this process applies one by one (docs/scale.md)
    :param min_workers: the training ends where fewer of Ray's workers are left, and none comes back within two minutes
    :param max_lag: a gradient from Ray is dropped if more updates than that were made since its weights; its steps
        count. null (None): twice the number of workers
    :param env_kwargs: arguments of ``make_vec_env`` to go with an id, such as ``dict(frame_skip=4)``
    :param seed: worker r samples actions with ``seed + 1 + r``, and its environment e has ``seed + r *
        envs_per_worker + e``. (Runs of several workers still differ: their updates interleave as the clock has it.)
    :param device: cpu or auto; workers share parameters in main memory
    :raises ValueError: if an argument is out of range, or the environment is not one that workers could build
    """

    def __init__(
        self,
        policy: str | type[MemoryActorCriticPolicy],
        env: str | EnvFactory | None,
        learning_rate: Rate = 1e-4,
        workers: Count | None = None,
        envs_per_worker: Count = 8,
        t_max: Count = 20,
        gamma: Fraction = 0.99,
        gae_lambda: Fraction = 0.92,
        ent_coef: Rate = 0.01,
        vf_coef: NonNegative = 0.5,
        max_grad_norm: Positive | None = None,
        clip_reward: Positive | None = None,
        optimizer: Literal["adam", "rmsprop"] = "adam",
        max_skipped: Count | None = 10,
        worker_timeout: Positive | None = 300.0,
        max_restarts: Natural = 10,
        launcher: Launcher = "local",
        min_workers: Count = 1,
        max_lag: Natural | None = None,
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
        if device != "auto" and torch.device(device).type != "cpu":
            raise ValueError(f"A3C trains on the CPU, where its workers share parameters; got device '{device}'")
        require_options(A3C, {"envs_per_worker": envs_per_worker, "seed": seed})  # with which an environment is built
        self.algorithm = "A3C"
        self.workers = workers
        self.envs_per_worker = envs_per_worker
        self.t_max = t_max
        self.gamma = gamma
        self.gae_lambda = gae_lambda
        self.ent_coef = ent_coef
        self.vf_coef = vf_coef
        self.max_grad_norm = max_grad_norm
        self.clip_reward = clip_reward
        self.optimizer = optimizer
        self.max_skipped = max_skipped
        self._learning: Learning | None = None
        self._in_hand: list[Report] = []  # what has come, and is being shown to callbacks
        self._places: dict[int, Moment] = {}  # where each worker is, while they wait or before they begin
        self.worker_timeout = worker_timeout
        self.max_restarts = max_restarts
        self.launcher = launcher
        self.min_workers = min_workers
        self.max_lag = max_lag
        self.precision = precision
        super().__init__(
            policy,
            self._take_env(env, env_kwargs, seed),
            learning_rate=learning_rate,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,  # type: ignore[arg-type]
            verbose=verbose,
            device="cpu",
            support_multi_env=True,
            seed=seed,
        )
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        # Here and not in `__init__`, so that what `load` changes is checked too.
        self._require_setup(A3C)
        optimizer = {} if "optimizer_class" in self.policy_kwargs else OPTIMIZERS[self.optimizer]
        self._set_up_policy(**{**optimizer, **self.policy_kwargs})
        if any(getattr(module, "running_mean", None) is not None for module in self.policy.modules()):
            raise ValueError(
                "A3C's workers share parameters, but no running statistics, such as those of BatchNorm2d: choose a "
                "policy without them, with GroupNorm or LayerNorm instead"
            )

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str = "A3C",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for ``total_timesteps`` agent steps, summed over all environments, rounded up to whole segments.

        However it ends (also by Ctrl-C or by the failure of a worker), no process is left behind and the policy holds
        what was learned.

        :param callback: called in the main process; ``locals`` hold ``rewards``, ``dones`` and ``infos`` of the step
            (of ``infos`` only what concerns the end of an episode: its statistics, success, time limit)
        :param log_interval: updates between entries in the log
        :raises ValueError: if there is no environment, or policy or environment cannot be sent to another process
        :raises Diverged: if the loss, the gradient or the weights of a worker are not finite any more
        :raises FloatingPointError: if an environment of a worker gives numbers that are not finite
        :raises RuntimeError: if a worker fails or dies, with its traceback or how it ended
        """
        seed = self._worker_seed()  # before the steps are set to zero
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if self.launcher == "ray":
            callback.on_training_start(locals(), globals())
            self._learn_with_workers(self._job(seed), 1, total_timesteps, callback, log_interval, seed)
            callback.on_training_end()
            return self
        context, workers = multiprocessing.get_context("spawn"), self.workers or available_processors()
        job = torch.frombuffer(bytearray(pickled(self._job(seed))), dtype=torch.uint8).share_memory_()
        budget = StepBudget(self.num_timesteps, total_timesteps, context, workers)
        shared = SharedOptimizer(self.policy.optimizer, context, workers, self.guard.rate)
        before, made_before = (self.num_timesteps, self._n_updates), shared.steps
        callback.on_training_start(locals(), globals())

        self.guard.begin()
        refreshed, go_on = time.monotonic(), True
        pool = WorkerPool(context, budget, self.worker_timeout, self.max_restarts)
        try:
            with pool:
                self._learning = Learning(pool, shared, callback, log_interval, total_timesteps)
                pool.start(workers, run_worker, job, shared, budget)
                for report in pool.reports():
                    if time.monotonic() - refreshed > REFRESH_SECONDS:
                        self._refresh(shared)
                        refreshed = time.monotonic()
                    self._in_hand[:] = [report]
                    if not (go_on := self._take_in(self._in_hand, callback)):
                        break
            self._show(pool.left, callback)  # as far as the workers came
        finally:
            self._learning = None
            shared.copy_to(self.policy.optimizer)
            # What was played and learned: also what workers did after their last report that was read, and not what
            # they did not come to an end with.
            self.num_timesteps = before[0] + budget.played
            self._n_updates = before[1] + shared.steps - made_before
            self._places = pool.places
        require_finite_weights(self.policy)
        if go_on:
            self._update_current_progress_remaining(min(self.num_timesteps, total_timesteps), total_timesteps)
        callback.on_training_end()
        return self

    def _show(self, reports: Sequence[Report], callback: BaseCallback, to_the_end: bool = False) -> bool:
        """Each segment by itself, with its update, which has been made whatever a callback asks for."""
        if self._learning is None:  # with workers of Ray's
            return super()._show(reports, callback, to_the_end)
        go_on = True
        for report in list(reports):
            go_on = super()._show([report], callback, to_the_end=True) and go_on
            self._count(report)
        return go_on

    def _count(self, report: Report) -> None:
        """Count the update of a segment, or that it was skipped, and log what is due.

        :raises Diverged: if too many were skipped
        """
        assert self._learning is not None
        pool, shared, _, log_interval, total = self._learning
        if report.fault:
            if self.guard.skip(lambda: report.fault):
                shared.take(self.policy.optimizer, self.guard.rate)
        else:
            self.guard.take()
            self._n_updates += 1
        # The last segments may reach beyond the end of the training, where no schedule is defined.
        self._update_current_progress_remaining(min(self.num_timesteps, total), total)
        if log_interval is not None and self._n_updates % log_interval == 0 and not report.fault:
            self.logger.record("train/skipped_updates", self.guard.skipped)
            self.logger.record("time/worker_restarts", pool.restarts)
            self.dump_logs(self._n_updates)

    def _refresh(self, shared: SharedOptimizer) -> None:
        """Copy the shared parameters to the policy that callbacks see, while they are good."""
        if self.guard.in_a_row:
            return
        shared.copy_to(self.policy.optimizer)
        self.guard.mark()

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """Within a callback: all workers wait between two segments, and all that they have reported is taken in."""
        if self._learning is None:
            yield
            return
        pool, shared, callback = self._learning[:3]
        reports = [*self._in_hand, *pool.hold()]
        self._in_hand.clear()
        try:
            self._show(reports, callback)
            shared.copy_to(self.policy.optimizer)
            self._places = dict(pool.places)
            yield
        finally:
            self._places = {}
            pool.release()

    def _take_moment(self) -> Moment:
        moment = super()._take_moment()
        moment.parts["workers"] = {rank: place.parts for rank, place in sorted(self._places.items())}
        return moment

    def _take_up_place(self, moment: Moment) -> bool:
        self._places = {rank: Moment(place) for rank, place in moment.parts.get("workers", {}).items()}
        return bool(self._places) and not any(place.why_not_exact for place in self._places.values())

    def _job(self, seed: int) -> Job:
        """What workers are given."""
        policy = copy.copy(self.policy)
        del policy.optimizer  # of no use to a worker
        settings = Settings(**{name: getattr(self, name) for name in Settings._fields})
        assert self._env_factory is not None
        places = {rank: place.to_bytes() for rank, place in self._places.items()}
        self._places = {}
        return Job(policy, self._env_factory, self.envs_per_worker, seed, settings, places)

    def _update(self, results: Sequence[Result], version: int) -> bool:
        """Apply the gradient of a worker of Ray's, unless it is not finite, or of weights that are too old."""
        (result,) = results
        if result.report.fault:
            return self.guard.skip(lambda: result.report.fault)
        most = 2 * (self.workers or available_processors()) if self.max_lag is None else self.max_lag
        dropped = version - result.version > most
        self.logger.record_mean("train/dropped", float(dropped))
        if not dropped:
            self._update_learning_rate(self.policy.optimizer)
            for parameter, gradient in zip(trained(self.policy.parameters()), result.content, strict=True):
                parameter.grad = None if gradient is None else torch.tensor(gradient)
            self.policy.optimizer.step()
            self.guard.take()
        return not dropped

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
        :param kwargs: further arguments of SB3's ``load``; ``trusted``, as in ``relmem.agents.load``; and attributes to
            change, such as ``workers=4``; an ``optimizer`` begins anew
        """
        # Not left to SB3, which would put saved tensors on a GPU where there is one.
        model = super().load(path, env, "cpu" if device == "auto" else device, **kwargs)
        # Another optimizer has no use for the statistics that were saved.
        if "optimizer" in kwargs and "optimizer_class" not in model.policy_kwargs:
            policy, make = model.policy, cast(Any, model.policy.optimizer_class)
            policy.optimizer = make(policy.parameters(), lr=model.lr_schedule(1), **policy.optimizer_kwargs)
        return model
