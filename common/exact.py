"""Exact copies of values that a file can hold without code (see ``plain``)."""

from __future__ import annotations

import copy
import random
from collections import deque
from typing import Any

import numpy as np
from torch import Tensor

from .plain import is_numeric

MOST_VALUES = 1_000_000
CONSTANT = (type(None), bool, int, float, str, bytes)
LEAVES = (bytearray, np.random.Generator, np.random.RandomState, random.Random)


class NotExact(ValueError):
    """A value whose copy, or what a file would hold of it, might not behave as it does."""


class Copier:
    """Copies values, and refuses what would not come back as it was: objects of unknown kinds, and parts that two
    places share. What it returns is one value, however many calls it was made in."""

    def __init__(self) -> None:
        self._room = MOST_VALUES
        self._seen: dict[int, Any] = {}  # by identity, held, so that no identity is used again

    def copy(self, value: Any) -> Any:
        """The same in other memory, tensors on the CPU.

        :raises NotExact: if it is not made of numbers, texts, arrays, tensors, random generators, and lists, tuples,
            sets and dictionaries of such
        """
        self._room -= 1
        if self._room < 0:
            raise NotExact("it is too large")
        kind = type(value)
        if kind in CONSTANT or (isinstance(value, np.generic) and is_numeric(value.dtype)):
            return value
        if kind is tuple:
            return tuple(map(self.copy, value))
        self._first_time(value)
        if kind is dict:
            return {self.copy(key): self.copy(part) for key, part in value.items()}
        if kind is list or kind is set:
            return kind(map(self.copy, value))
        if kind is deque:
            return deque(map(self.copy, value), value.maxlen)
        if kind is np.ndarray and is_numeric(value.dtype):
            if value.base is not None:
                self._first_time(value.base)
            return value.copy()
        if isinstance(value, Tensor):
            return value.detach().cpu().clone()
        if kind in LEAVES:
            return copy.deepcopy(value)
        raise NotExact(f"it is of the kind {kind.__name__}" + (f" of {value.dtype}" if kind is np.ndarray else ""))

    def _first_time(self, value: Any) -> None:
        if id(value) in self._seen:
            raise NotExact("two places share it")
        self._seen[id(value)] = value


def exact_copy(value: Any) -> Any:
    """What ``Copier.copy`` makes of a value that has nothing to do with any other."""
    return Copier().copy(value)
