"""The worker process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

import cloudpickle
import numpy as np
import torch
from stable_baselines3.common.utils import set_random_seed
from torch import Tensor, nn

from ..distributed.fleet import Weights, load_weights
from ..finite import Diverged
from ..messages import PlayedStep, Report
from ..policy import MemoryActorCriticPolicy
from ..resume import Moment
from ..schedule import as_schedule
from ..worker_envs import EnvFactory, build_env
from .learner import SegmentLearner, Settings
from .shared import SharedOptimizer, StepBudget

PR_SET_PDEATHSIG = 1  # from Linux's prctl.h
HELD_SECONDS = 0.005  # between looks whether a held worker may go on


class Job(NamedTuple):
    """What all workers are given alike. It travels by value, so that cores, features and environments of the user's own
    exist in the worker too, even those defined in a notebook."""

    policy: MemoryActorCriticPolicy
    env_factory: EnvFactory
    n_envs: int
    seed: int
    settings: Settings
    places: dict[int, bytes]  # by number of the worker: the ``Moment`` of an earlier one

    def worker(self, seed: int) -> GradientWorker:
        """A worker for a learner elsewhere, which applies its gradients."""
        return GradientWorker(self, seed)


class GradientWorker:
    """Plays segments with weights that it is given, and returns their gradients."""

    def __init__(self, job: Job, seed: int) -> None:
        self._policy, self._settings = job.policy, job.settings
        self._env = build_env(job.env_factory, job.n_envs, seed)
        self._learner = SegmentLearner(job.policy, self._env, job.settings)
        self._buffers = persistent_buffers(job.policy)

    def work(self, weights: Weights, progress_remaining: float) -> tuple[Report, list[np.ndarray | None]]:
        """Play a segment.

        :return: its report; one gradient for each parameter, None where the loss does not depend on it; where the loss
            or its gradient is not finite, a fault and nothing
        """
        load_weights(self._policy, weights)
        steps: list[PlayedStep] = []
        try:
            steps = self._learner.play()
            gradients, statistics = self._learner.gradients(as_schedule(self._settings.ent_coef)(progress_remaining))
        except Diverged as error:
            self._learner.forget()
            return Report(steps, {}, str(error)), []
        require_constant_buffers(self._policy, self._buffers)
        return Report(steps, statistics), [None if grad is None else grad.numpy() for grad in gradients]

    def close(self) -> None:
        self._env.close()


def run_worker(
    rank: int, number: int, job: Tensor, optimizer: SharedOptimizer, budget: StepBudget, reports: Connection
) -> None:
    """Train until the budget is used up; send a ``Report`` after each update, the ``Moment`` where the worker is when
    it is held and at the end, and then None or what went wrong.

    :param rank: number of this worker, from 0
    :param number: of workers that were started before all of those of this rank, and of those in its place
    :param job: a pickled ``Job``, as bytes in shared memory. (What is sent along with a new process must be small:
        the main process would wait for ever for one that dies before it has read more than a pipe holds.)
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends its workers
    torch.set_num_threads(1)  # the other cores belong to the other workers
    last: Exception | None = None
    try:
        for message in _train(rank, number, cloudpickle.loads(job.numpy().tobytes()), optimizer, budget):
            reports.send(message)
    except FloatingPointError as error:  # of a loss or an environment: it needs no traceback
        last = type(error)(f"A3C worker {rank}: {error}")
    except Exception:
        last = RuntimeError(f"A3C worker {rank} failed:\n\n{traceback.format_exc()}")
    with contextlib.suppress(BrokenPipeError):  # the main process is gone
        reports.send(last)


def end_with_parent() -> None:
    """Let this process end when the one that started it does, even while an environment does not return."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":  # which can end a process whose environment lets no other thread run, too
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _train(
    rank: int, number: int, job: Job, optimizer: SharedOptimizer, budget: StepBudget
) -> Iterator[Report | bytes]:
    settings, n_envs = job.settings, job.n_envs
    set_random_seed(job.seed + 1 + number)
    with contextlib.closing(build_env(job.env_factory, n_envs, job.seed + number * n_envs)) as env:
        learner = SegmentLearner(job.policy, env, settings)
        if number == rank and rank in job.places:  # who takes the place of another begins anew
            learner.take_up(Moment.from_bytes(job.places[rank]))
        buffers = persistent_buffers(job.policy)
        while True:
            if budget.held:
                yield learner.moment().to_bytes()
                while budget.held:
                    time.sleep(HELD_SECONDS)
            taken = budget.claim(settings.t_max * n_envs, rank)
            if taken is None:
                break
            report = _learn(rank, learner, 1 - taken / budget.total, optimizer, buffers)
            budget.settle(rank)
            yield report
        yield learner.moment().to_bytes()


def _learn(
    rank: int,
    learner: SegmentLearner,
    progress_remaining: float,
    optimizer: SharedOptimizer,
    buffers: dict[str, Tensor],
) -> Report:
    """Play a segment, and update the shared parameters if the update is finite."""
    settings, steps = learner.settings, []
    optimizer.load_into(learner.parameters)
    try:
        steps = learner.play()
        gradients, statistics = learner.gradients(as_schedule(settings.ent_coef)(progress_remaining))
    except Diverged as error:
        learner.forget()
        return Report(steps, {}, f"A3C worker {rank}: {error}")
    require_constant_buffers(learner.policy, buffers)
    optimizer.step(gradients, settings.lr_schedule(progress_remaining), rank)
    return Report(steps, statistics)


def persistent_buffers(policy: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers that are saved with a policy, by name."""
    saved = policy.state_dict()
    return {name: buffer.clone() for name, buffer in policy.named_buffers() if name in saved}


def require_constant_buffers(policy: nn.Module, before: dict[str, Tensor]) -> None:
    """Raise a ValueError if playing or learning has changed what would be each worker's own, and be lost.

    :param before: what ``persistent_buffers`` returned
    """
    after = dict(policy.named_buffers())
    for name, buffer in before.items():
        same = buffer.shape == after[name].shape and torch.allclose(buffer, after[name], rtol=0, atol=0, equal_nan=True)
        if not same:
            raise ValueError(
                f"A3C's workers share parameters, but no buffers such as running statistics, and '{name}' changes in "
                "training: choose a policy without it, or register what is mere scratch with persistent=False"
            )
