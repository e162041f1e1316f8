"""Parts of a minibatch of images, each on a Python thread of its own.

The products of a small minibatch are too small to be divided among the threads of OpenMP: those that sleep between them
wake too late, and those that spin stop whatever else the machine computes. Parts meet twice an update, not at every
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

PART = 128  # transitions that a thread is worth having for: of fewer, what Python does in between takes too much

Item = TypeVar("Item")
Result = TypeVar("Result")


class Map(Protocol):
    """Python's ``map``, all at once."""

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item], /) -> list[Result]: ...


def n_parts(policy: MemoryActorCriticPolicy, transitions: int) -> int | None:
    """In how many parts a minibatch is learned from, each on one thread; None: as a whole, as PyTorch sees fit, where
    it is not of images or not on a CPU.

    (Layers that are no function of one observation, such as BatchNorm, or that draw numbers, are in no extractor of
    ours, and with other extractors minibatches stay whole.)
    """
    if policy.device.type != "cpu" or convolutions(policy.features_extractor) is None:
        return None
    return max(1, min(torch.get_num_threads(), transitions // PART))


def twins(policy: MemoryActorCriticPolicy, n: int) -> list[MemoryActorCriticPolicy]:
    """The policy ``n`` times, for as many threads: what SB3's keeps from call to call, its distribution, is each one's
    own, and all the rest is shared."""
    copies = [copy.copy(policy) for _ in range(n)]
    for twin in copies:
        twin.action_dist = copy.copy(policy.action_dist)
    return copies


@contextmanager
def mapping(n: int | None) -> Iterator[Map]:
    """A ``map`` on ``n`` Python threads, each of which PyTorch computes with alone; None: on the caller's, with as many
    as PyTorch likes."""
    if n is None:
        yield _in_turn
        return
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        if n == 1:
            yield _in_turn
        else:
            with ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield lambda function, items: list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)  # which is also what threads to come begin with


def _in_turn(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]
