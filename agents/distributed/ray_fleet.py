"""Workers as Ray actors. Ray schedules them, moves what they need, and tells which are lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Self, cast

import cloudpickle
import ray
import torch
from ray.exceptions import RayError, RayTaskError
from stable_baselines3.common.utils import set_random_seed

from ...common.output import warn
from ..messages import Report, pickled
from . import connect
from .fleet import Job, Result, Weights, Worker

WATCH_SECONDS = 1.0  # between looks at workers that do not report
PATIENCE_SECONDS = 120.0  # for workers to start, or to start again, before there are too few
SLOW_SECONDS = 30.0  # of waiting, after which it is said what for


class RayWorker:
    """The actor around a worker. After a restart it is empty until ``start``."""

    def __init__(self) -> None:
        torch.set_num_threads(1)  # it has one processor
        self._worker: Worker | None = None

    @ray.method(max_task_retries=-1)  # to start twice does no harm, and the call then waits for an actor that restarts
    def start(self, job: bytes, seed: int) -> None:
        """Build environments, and begin with new episodes."""
        if self._worker is not None:
            self._worker.close()
        set_random_seed(seed)
        self._worker = cloudpickle.loads(job).worker(seed)

    def work(self, orders: tuple[Weights, float]) -> tuple[Report, Any] | None:
        """Play a segment; None from an actor that has restarted since it was asked."""
        return None if self._worker is None else self._worker.work(*orders)


class RayFleet:
    """Workers as Ray actors, each with one processor. A segment is asked for at most once: what a lost worker played
    is gone, and Ray starts it again, with new episodes.

    :param job: what they are given
    :param n_workers: how many there are; as many as find room on the cluster play
    :param min_workers: where fewer play for ``PATIENCE_SECONDS``, the training ends
    :param seed: the k-th start of a worker, the first ones included, seeds its environments with ``seed + k * n_envs``
        and the numbers that follow
    """

    def __init__(self, job: Job, n_workers: int, min_workers: int, seed: int) -> None:
        connect(None, n_workers)
        self.version, self.restarts = 0, 0
        self._job, self._n_envs = ray.put(pickled(job)), job.n_envs
        self._min_workers, self._seed, self._starts = min(min_workers, n_workers), seed, 0
        self._orders: ray.ObjectRef | None = None
        self._lost = ""  # how the last worker was
        self._tasks: dict[ray.ObjectRef, tuple[Any, int | None]] = {}  # worker, version; None: it starts
        self._enough, self._slow = time.monotonic(), time.monotonic() + SLOW_SECONDS
        actor = cast(Any, ray.remote(RayWorker)).options(num_cpus=1, max_restarts=-1, max_task_retries=0)
        self._actors = [actor.remote() for _ in range(n_workers)]
        for worker in self._actors:
            self._start(worker)

    @property
    def alive(self) -> int:
        return sum(version is not None for _, version in self._tasks.values())

    def publish(self, weights: Weights, progress_remaining: float) -> None:
        self.version += 1
        self._orders = ray.put((weights, progress_remaining))  # once, whoever takes it from the object store

    def results(self) -> Iterator[Result]:
        """What workers have done, as it comes.

        :raises FloatingPointError: if an environment of a worker gives numbers that are not finite
        :raises RuntimeError: if a worker fails for a reason of its own, or fewer than ``min_workers`` are left
        """
        while True:
            ready, _ = ray.wait(list(self._tasks), timeout=WATCH_SECONDS)
            self._require_enough()
            for task in ready:
                worker, version = self._tasks.pop(task)
                try:
                    found = ray.get(task)
                except RayTaskError as error:
                    raise _failure(error) from error
                except RayError as error:  # the actor, its machine, or what it had played is lost
                    self.restarts += version is not None
                    self._lost = " ".join(str(error).split())
                    self._start(worker)
                    continue
                if version is not None and found is None:
                    self.restarts += 1
                    self._start(worker)
                    continue
                # The next segment is played while the learner learns from this one.
                self._tasks[worker.work.remote(self._orders)] = worker, self.version
                if version is not None:
                    report, content = found
                    yield Result(report, content, version)

    def _start(self, worker: Any) -> None:
        seed = (self._seed + self._starts * self._n_envs) % 2**31
        self._starts += 1
        self._tasks[worker.start.remote(self._job, seed)] = worker, None

    def _require_enough(self) -> None:
        now, alive = time.monotonic(), self.alive
        if alive >= self._min_workers:
            self._enough = now
        if alive == len(self._actors):
            self._slow = now + SLOW_SECONDS
        elif now > self._slow:
            self._slow = float("inf")
            warn(f"{self._state(alive)}: the others wait for processors, or start")
        if now - self._enough > PATIENCE_SECONDS:
            lost = f" (the last one was lost by: {self._lost})" if self._lost else ""
            raise RuntimeError(f"{self._state(alive)}, and min_workers is {self._min_workers}: the training ends{lost}")

    def _state(self, alive: int) -> str:
        processors = ray.cluster_resources().get("CPU", 0)
        return f"{alive} of {len(self._actors)} workers play, on a Ray cluster of {processors:.0f} processors"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._actors:
            ray.kill(worker)


def _failure(error: RayTaskError) -> Exception:
    """What went wrong in a worker: numbers of a loss or an environment need no traceback."""
    cause = error.cause
    if isinstance(cause, FloatingPointError):
        return type(cause)(f"worker: {cause}")
    return RuntimeError(f"a worker failed:\n\n{error}")
