"""The worker process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait

import cloudpickle  # type: ignore[import-untyped]
import torch
from stable_baselines3.common.utils import set_random_seed
from torch import Tensor

from ..policy import MemoryActorCriticPolicy
from .budget import StepBudget
from .environments import EnvFactory, build_env
from .learner import Report, SegmentLearner, Settings
from .optimizer import SharedOptimizer

PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


@dataclass(frozen=True)
class Job:
    """What all workers are given alike.

    It travels by value, so that cores, features and environments of the user's own exist in the worker too, even
    those defined in a notebook.
    """

    policy: MemoryActorCriticPolicy
    env_factory: EnvFactory
    n_envs: int
    seed: int
    settings: Settings


@dataclass(frozen=True)
class Done:
    """The last message of a worker.

    :param error: the traceback, if it failed
    :param cause: what was raised, if a loss or an environment is not finite, which needs no traceback
    """

    error: str | None = None
    cause: FloatingPointError | None = None


def run_worker(rank: int, job: Tensor, optimizer: SharedOptimizer, budget: StepBudget, reports: Connection) -> None:
    """Train until the budget is used up; send a ``Report`` after each update and ``Done`` at the end.

    :param rank: number of this worker, from 0
    :param job: a pickled ``Job``, as bytes in shared memory. (What is sent along with a new process must be small:
        the main process would wait for ever for one that dies before it has read more than a pipe holds.)
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends its workers
    torch.set_num_threads(1)  # the other cores belong to the other workers
    done = Done()
    try:
        for report in _train(rank, cloudpickle.loads(job.numpy().tobytes()), optimizer, budget):
            if not _send(reports, report):
                return
    except FloatingPointError as error:
        done = Done(traceback.format_exc(), type(error)(f"A3C worker {rank}: {error}"))
    except Exception:
        done = Done(traceback.format_exc())
    _send(reports, done)


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


def _train(rank: int, job: Job, optimizer: SharedOptimizer, budget: StepBudget) -> Iterator[Report]:
    settings = job.settings
    set_random_seed(job.seed + 1 + rank)
    with contextlib.closing(build_env(job.env_factory, job.n_envs, job.seed + rank * job.n_envs)) as env:
        learner = SegmentLearner(job.policy, env, settings)
        buffers = persistent_buffers(job.policy)
        while (taken := budget.claim(settings.t_max * job.n_envs)) is not None:
            progress_remaining = 1 - taken / budget.total
            optimizer.load_into(learner.parameters)
            rewards, dones, infos = learner.play()
            gradients, statistics = learner.gradients(settings.ent_coef(progress_remaining))
            require_constant_buffers(job.policy, buffers)
            optimizer.step(gradients, settings.learning_rate(progress_remaining))
            yield Report(rewards, dones, infos, statistics)


def persistent_buffers(policy: MemoryActorCriticPolicy) -> dict[str, Tensor]:
    """Copies of the buffers that are saved with a policy, by name."""
    saved = policy.state_dict()
    return {name: buffer.clone() for name, buffer in policy.named_buffers() if name in saved}


def require_constant_buffers(policy: MemoryActorCriticPolicy, before: dict[str, Tensor]) -> None:
    """Raise a ValueError if playing or learning has changed what would be each worker's own, and be lost.

    :param before: what ``persistent_buffers`` returned
    """
    after = persistent_buffers(policy)
    for name, buffer in before.items():
        same = buffer.shape == after[name].shape and torch.allclose(buffer, after[name], rtol=0, atol=0, equal_nan=True)
        if not same:
            raise ValueError(
                f"A3C's workers share parameters, but no buffers such as running statistics, and '{name}' changes in "
                "training: choose a policy without it, or register what is mere scratch with persistent=False"
            )


def _send(connection: Connection, message: Report | Done) -> bool:
    """:return: False if the main process is gone"""
    try:
        connection.send(message)
    except BrokenPipeError:
        return False
    return True
