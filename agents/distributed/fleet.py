"""What a learner knows of its workers, wherever they are; and workers that are objects of its own process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self

import cloudpickle
import numpy as np
import torch
from torch import nn

from ..messages import Report, pickled

Weights = list[np.ndarray]


class Worker(Protocol):
    """Plays in environments of its own."""

    def work(self, weights: Weights, progress_remaining: float) -> tuple[Report, Any]:
        """Play a segment with these weights.

        :param progress_remaining: of the training, from 1 to 0, for schedules
        :return: what is reported of it, and what the learner learns from
        """

    def close(self) -> None: ...


class Job(Protocol):
    """What all workers are given alike. It travels by value."""

    @property
    def n_envs(self) -> int: ...

    def worker(self, seed: int) -> Worker: ...


class Result(NamedTuple):
    report: Report
    content: Any  # what the learner learns from
    version: int  # of the weights that it was made with


class Fleet(Protocol):
    """Workers, each with one segment to play at a time. Used as a context: leaving it ends them all."""

    version: int  # of the weights published last
    restarts: int  # of workers that were lost

    @property
    def alive(self) -> int:
        """Workers that play."""

    def publish(self, weights: Weights, progress_remaining: float) -> None:
        """Let segments that begin from now on be played with these weights."""

    def results(self) -> Iterator[Result]:
        """What workers have done, without end. Who asks for the next result has no use for the last any more."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class LocalFleet:
    """Workers as objects of this process, which take turns: reproducible, and as fast as one of them.

    :param job: what they are given
    :param n_workers: how many there are
    :param seed: worker r seeds its environments with ``seed + r * n_envs`` and the numbers that follow
    """

    def __init__(self, job: Job, n_workers: int, seed: int) -> None:
        self.version, self.restarts = 0, 0
        copies: list[Job] = [cloudpickle.loads(pickled(job)) for _ in range(n_workers)]  # each with its own policy
        self._workers = [copy.worker(seed + rank * job.n_envs) for rank, copy in enumerate(copies)]

    @property
    def alive(self) -> int:
        return len(self._workers)

    def publish(self, weights: Weights, progress_remaining: float) -> None:
        self.version += 1
        self._orders = weights, progress_remaining

    def results(self) -> Iterator[Result]:
        for worker in itertools.cycle(self._workers):
            report, content = worker.work(*self._orders)
            yield Result(report, content, self.version)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()


def weights_of(network: nn.Module) -> Weights:
    """All that is saved with a network, running statistics included; views where it is in main memory."""
    return [tensor.detach().cpu().numpy() for tensor in network.state_dict().values()]


@torch.no_grad()
def load_weights(network: nn.Module, weights: Sequence[np.ndarray]) -> None:
    """Take over what ``weights_of`` gave of a network like this one."""
    for tensor, array in zip(network.state_dict().values(), weights, strict=True):
        np.copyto(tensor.numpy(), array)  # not through a tensor, which would warn that Ray's arrays are read-only
