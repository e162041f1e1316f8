"""Two halves of a minibatch at a time, each on a Python thread of its own.

The products of a small minibatch are too small to be divided among the threads of OpenMP: those that sleep between them
wake too late, and those that spin stop whatever else the machine computes. Halves meet twice an update, not at every
product.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

from .features import convolutions
from .policy import MemoryActorCriticPolicy

Item = TypeVar("Item")
Result = TypeVar("Result")


class Map(Protocol):
    """Python's ``map``, all at once."""

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item], /) -> list[Result]: ...


def halves_pay(policy: MemoryActorCriticPolicy) -> bool:
    """Whether minibatches are worth halving: for images, on a CPU with more than one thread to compute with.

    (Layers that are no function of one observation, such as BatchNorm, or that draw numbers, are in no extractor of
    ours, and other extractors are not halved.)
    """
    on_cpu = policy.device.type == "cpu" and torch.get_num_threads() > 1
    return on_cpu and convolutions(policy.features_extractor) is not None


def twins(policy: MemoryActorCriticPolicy, n: int) -> list[MemoryActorCriticPolicy]:
    """The policy ``n`` times, for as many threads: what SB3's keeps from call to call, its distribution, is each one's
    own, and all the rest is shared."""
    copies = [copy.copy(policy) for _ in range(n)]
    for twin in copies:
        twin.action_dist = copy.copy(policy.action_dist)
    return copies


@contextmanager
def mapping(n: int) -> Iterator[Map]:
    """A ``map`` whose ``n`` threads divide PyTorch's among them; with one, the caller's own does it all."""
    if n == 1:
        yield lambda function, items: [function(item) for item in items]
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(threads // n,)) as pool:
        yield lambda function, items: list(pool.map(function, items))
    torch.set_num_threads(threads)  # which is what threads to come begin with
