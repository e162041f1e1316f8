"""Python values as plain data and tensors, which a file can hold without code, and back again, exactly.

Plain data is what JSON knows: None, truth values, numbers, texts, lists, and dictionaries whose keys are texts. A value
of any other kind becomes a list of its kind and its content; arrays lie apart, under names.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_VALUES = 1_000_000


class NotPlain(ValueError):
    """A value that is neither plain data nor made of it."""


class Packer:
    """Packs values, and refuses what would not come back as it was: objects of unknown kinds, and parts that two
    places share."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._room = MOST_VALUES
        self._seen: dict[int, Any] = {}  # by identity, held, so that no identity is used again

    def pack(self, value: Any) -> Any:
        """Plain data that stands for a value; its arrays are copied to ``tensors``.

        :raises NotPlain: if it cannot be packed
        """
        self._room -= 1
        if self._room < 0:
            raise NotPlain("it is too large")
        if value is None or type(value) in (bool, str):
            return value
        if type(value) is int:
            return value if abs(value) < 2**53 else ["int", hex(value)]
        if type(value) is float:
            return ["float", value.hex()]
        if isinstance(value, np.generic):
            return ["scalar", self._array(np.asarray(value))]
        if type(value) is bytes or type(value) is bytearray:
            return [type(value).__name__, self._array(np.frombuffer(value, np.uint8))]
        if type(value) is tuple:
            return ["tuple", [self.pack(part) for part in value]]
        self._first_time(value)
        if type(value) in (dict, OrderedDict):
            return [type(value).__name__, [[self.pack(key), self.pack(part)] for key, part in value.items()]]
        if type(value) in (list, set):
            return [type(value).__name__, [self.pack(part) for part in value]]
        if type(value) is deque:
            return ["deque", [value.maxlen, [self.pack(part) for part in value]]]
        if type(value) is np.ndarray:
            if value.base is not None:
                self._first_time(value.base)
            return ["array", self._array(value)]
        if isinstance(value, Tensor):
            return ["tensor", self._keep(value.detach())]
        if isinstance(value, np.random.Generator):
            return ["generator", [type(value.bit_generator).__name__, self.pack(value.bit_generator.state)]]
        if isinstance(value, np.random.RandomState):
            return ["random_state", self.pack(value.get_state(legacy=False))]
        if isinstance(value, random.Random):
            return ["random", self.pack(value.getstate())]
        raise NotPlain(f"it is of the kind {type(value).__name__}")

    def begin(self) -> None:
        """What follows has nothing to do with what came before, and may share constants with it."""
        self._seen.clear()

    def _first_time(self, value: Any) -> None:
        if id(value) in self._seen:
            raise NotPlain("two places share it")
        self._seen[id(value)] = value

    def _array(self, array: np.ndarray) -> str:
        try:
            return self._keep(torch.from_numpy(np.array(array)))  # a copy
        except (TypeError, ValueError):
            raise NotPlain(f"it is an array of {array.dtype}") from None

    def _keep(self, tensor: Tensor) -> str:
        name = str(len(self.tensors))
        self.tensors[name] = tensor.cpu().clone().contiguous()
        return name


def pack(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """A value as plain data and tensors by name.

    :raises NotPlain: if it cannot be packed
    """
    packer = Packer()
    return packer.pack(value), packer.tensors


def unpack(data: Any, tensors: dict[str, Tensor]) -> Any:
    """What ``pack`` was given: equal, with nothing shared.

    :raises ValueError: if it is not what ``pack`` returned
    """
    try:
        return _unpack(data, tensors)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"this is not what was packed: {type(error).__name__}: {error}") from error


def _unpack(data: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(data, list):
        return data
    kind, content = data
    match kind:
        case "int":
            return int(content, 16)
        case "float":
            return float.fromhex(content)
        case "scalar":
            return tensors[content].numpy()[()]
        case "bytes" | "bytearray":
            return {"bytes": bytes, "bytearray": bytearray}[kind](tensors[content].numpy().tobytes())
        case "dict" | "OrderedDict":
            items = [(_unpack(key, tensors), _unpack(part, tensors)) for key, part in content]
            return dict(items) if kind == "dict" else OrderedDict(items)
        case "list" | "tuple" | "set":
            return {"list": list, "tuple": tuple, "set": set}[kind](_unpack(part, tensors) for part in content)
        case "deque":
            return deque((_unpack(part, tensors) for part in content[1]), maxlen=content[0])
        case "array":
            return tensors[content].numpy().copy()
        case "tensor":
            return tensors[content].clone()
        case "generator":
            if content[0] not in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"):
                raise ValueError(f"unknown generator '{content[0]}'")
            generator = np.random.Generator(getattr(np.random, content[0])())
            generator.bit_generator.state = _unpack(content[1], tensors)
            return generator
        case "random_state":
            random_state = np.random.RandomState()
            random_state.set_state(_unpack(content, tensors))
            return random_state
        case "random":
            generator_ = random.Random()
            generator_.setstate(_unpack(content, tensors))
            return generator_
    raise ValueError(f"unknown kind '{kind}'")
