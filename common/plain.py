"""Python values as plain data: JSON, and tensors beside it.

What comes back from JSON is data and never code. The few classes that a trained agent consists of (spaces, schedules,
layers, optimizers) are named, and looked up in a list of ours. What has no plain form, such as a function or a class of
the user's own, is pickled, and stays so until somebody who trusts the file asks for it.
"""

from __future__ import annotations

import base64
import importlib
import random
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import cloudpickle
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

PICKLE = ":serialized:"  # SB3's name for what it pickled, in base64
TYPE = ":type:"  # SB3's name for what that was
# Modules of which a file may name layers, feature extractors, policies and optimizers.
MODULES = ("torch.nn", "torch.optim", "stable_baselines3.common", "sb3_contrib.common", "relmem.agents")
SCHEDULES = {
    "stable_baselines3.common.utils": ("FloatSchedule", "LinearSchedule", "ConstantSchedule"),
    "rl_zoo3.utils": ("SimpleLinearSchedule",),
}


BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class NotPlain(ValueError):
    """What is to be read holds pickles, and nobody said that it may be trusted."""


class Encoder:
    """Turns values into what JSON can hold.

    Numbers, text, lists, dictionaries and None stay what they are, and paths become text. All else becomes a dictionary
    of one key with a dollar.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        """Tensors and arrays found on the way, by the place where they stood."""
        self._kept: dict[tuple[Any, ...], str] = {}  # their names, by their place in memory

    def encode(self, value: Any, place: str = "") -> Any:
        """The plain form of a value. ``place`` says where it stands: ``state.0.exp_avg``."""
        if isinstance(value, np.generic) and is_numeric(value.dtype):  # before numbers, of which one is a float64
            return {"$number": [value.dtype.name, value.item()]}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Tensor):
            return {"$tensor": self._put(value.detach(), place)}
        if isinstance(value, np.ndarray) and is_numeric(value.dtype.newbyteorder("=")):
            # Not in the byte order of another machine, which torch does not know.
            array = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
            return {"$array": self._put(torch.from_numpy(array.reshape(value.shape)), place)}
        if type(value) in SPACES:  # before mappings, of which one is a Dict
            return {"$space": [type(value).__name__, self.encode(SPACES[type(value)](value), place)]}
        if isinstance(value, Mapping):
            return self._mapping(value, place)
        if isinstance(value, list):
            return self._items(value, place)
        if isinstance(value, set):
            return {"$set": self._items(value, place)}
        if isinstance(value, tuple):
            return {"$tuple": self._items(value, place)}
        if isinstance(value, deque):
            return {"$deque": [self._items(value, place), value.maxlen]}
        if isinstance(value, bytes | bytearray):
            return {f"${type(value).__name__}": base64.b64encode(value).decode()}
        if isinstance(value, np.random.Generator):
            bits = value.bit_generator
            return {"$generator": [type(bits).__name__, self.encode(bits.state, place)]}
        if isinstance(value, np.random.RandomState):
            return {"$random_state": self.encode(value.get_state(legacy=False), place)}
        if isinstance(value, random.Random):
            return {"$random": self.encode(value.getstate(), place)}
        if isinstance(value, PurePath):
            return str(value)
        if _name(type(value)) in _schedules():
            return {"$schedule": [_name(type(value)), self.encode(vars(value), place)]}
        if isinstance(value, type) and _is_ours(value):
            return {"$class": _name(value)}
        if isinstance(value, np.dtype):
            return {"$numpy_dtype": str(value)}
        if isinstance(value, torch.dtype):
            return {"$torch_dtype": str(value).removeprefix("torch.")}
        return {TYPE: str(type(value)), PICKLE: base64.b64encode(cloudpickle.dumps(value)).decode()}

    def _mapping(self, value: Mapping[Any, Any], place: str) -> Any:
        names = all(isinstance(key, str) and key[:1] not in ("$", ":") for key in value)
        encoded = [(key, self.encode(item, f"{place}.{key}" if place else str(key))) for key, item in value.items()]
        return dict(encoded) if names else {"$items": [[self.encode(key, place), item] for key, item in encoded]}

    def _items(self, values: Any, place: str) -> list[Any]:
        return [self.encode(item, f"{place}.{number}") for number, item in enumerate(values)]

    def _put(self, tensor: Tensor, place: str) -> str:
        """Keep a tensor, once: a policy's state has those of its features under three names."""
        memory = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device
        if tensor.numel() and memory in self._kept:
            return self._kept[memory]
        while place in self.tensors:
            place += "_"
        self.tensors[place], self._kept[memory] = tensor, place
        return place


class Decoder:
    """Turns the plain form back into values.

    :param tensors: those that the plain form names
    :param trusted: whether what was pickled may be loaded, which runs whatever code it holds
    """

    def __init__(self, tensors: Mapping[str, Tensor], trusted: bool = False) -> None:
        self.tensors, self.trusted = tensors, trusted
        self.pickled: list[str] = []
        """Places of what was pickled and therefore not read."""

    def decode(self, value: Any, place: str = "") -> Any:
        """The value whose plain form this is.

        :raises ValueError: if it is the plain form of nothing
        """
        if isinstance(value, list):
            return [self.decode(item, f"{place}.{number}") for number, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if PICKLE in value:
            if self.trusted:
                return cloudpickle.loads(base64.b64decode(value[PICKLE]))
            self.pickled.append(place)
            return None
        kind = next(iter(value), "")
        if kind[:1] != "$":
            return {key: self.decode(item, f"{place}.{key}" if place else key) for key, item in value.items()}
        if kind not in DECODERS or len(value) != 1:
            raise ValueError(f"'{place}' is of the unknown kind {kind}")
        try:
            return DECODERS[kind](self, value[kind], place)
        except (TypeError, KeyError, AttributeError, ImportError, AssertionError, RecursionError) as error:
            raise ValueError(f"'{place}' is no {kind[1:]}: {error}") from error

    def _number(self, content: Any, place: str) -> np.generic:
        dtype = np.dtype(content[0])
        if not is_numeric(dtype):
            raise TypeError(f"'{content[0]}' is no number")
        return dtype.type(content[1])

    def _generator(self, content: Any, place: str) -> np.random.Generator:
        name, state = content
        if name not in BIT_GENERATORS:
            raise ValueError(f"'{place}' is the unknown generator '{name}'")
        generator = np.random.Generator(getattr(np.random, name)())
        generator.bit_generator.state = self.decode(state, place)
        return generator

    def _random_state(self, content: Any, place: str) -> np.random.RandomState:
        generator = np.random.RandomState()
        generator.set_state(self.decode(content, place))
        return generator

    def _random(self, content: Any, place: str) -> random.Random:
        generator = random.Random()
        generator.setstate(self.decode(content, place))
        return generator

    def _space(self, content: Any, place: str) -> spaces.Space:
        name, arguments = content
        cls = {cls.__name__: cls for cls in SPACES}[name]
        arguments = self.decode(arguments, place)
        return cls(arguments) if cls is spaces.Dict else cls(**arguments)

    def _schedule(self, content: Any, place: str) -> Callable[[float], float]:
        name, fields = content
        if name not in _schedules():
            raise ValueError(f"'{place}' is the unknown schedule '{name}'")
        schedule = _found(name)
        made = schedule.__new__(schedule)
        vars(made).update(self.decode(fields, place))
        return made

    def _class(self, name: Any, place: str) -> type:
        found = _found(name) if any(f"{name}.".startswith(f"{module}.") for module in MODULES) else None
        if not (isinstance(found, type) and _is_ours(found)):
            raise ValueError(f"'{place}' is the class '{name}', which no file of ours may name")
        return found


DECODERS: dict[str, Callable[[Decoder, Any, str], Any]] = {
    "$tensor": lambda decoder, name, place: decoder.tensors[name],
    "$array": lambda decoder, name, place: decoder.tensors[name].numpy(),
    "$number": Decoder._number,
    "$tuple": lambda decoder, items, place: tuple(decoder.decode(items, place)),
    "$set": lambda decoder, items, place: set(decoder.decode(items, place)),
    "$deque": lambda decoder, content, place: deque(decoder.decode(content[0], place), content[1]),
    "$items": lambda decoder, items, place: {
        decoder.decode(key): decoder.decode(item, f"{place}.{key}") for key, item in items
    },
    "$bytes": lambda decoder, text, place: base64.b64decode(text),
    "$bytearray": lambda decoder, text, place: bytearray(base64.b64decode(text)),
    "$generator": Decoder._generator,
    "$random_state": Decoder._random_state,
    "$random": Decoder._random,
    "$numpy_dtype": lambda decoder, name, place: np.dtype(name),
    "$torch_dtype": lambda decoder, name, place: _torch_dtype(name),
    "$space": Decoder._space,
    "$schedule": Decoder._schedule,
    "$class": Decoder._class,
}

SPACES: dict[type[spaces.Space], Callable[[Any], Any]] = {  # what makes each of them anew
    spaces.Box: lambda space: {"low": space.low, "high": space.high, "shape": space.shape, "dtype": space.dtype},
    spaces.Discrete: lambda space: {"n": space.n, "start": space.start, "dtype": space.dtype},
    spaces.MultiDiscrete: lambda space: {"nvec": space.nvec, "start": space.start, "dtype": space.dtype},
    spaces.MultiBinary: lambda space: {"n": space.n},
    spaces.Dict: lambda space: [(key, part) for key, part in space.items()],
}


def is_numeric(dtype: np.dtype) -> bool:
    """Whether arrays are of numbers that PyTorch knows too, in this machine's order of bytes."""
    return dtype.kind in "biuf" and dtype.itemsize <= 8 and dtype.isnative


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _schedules() -> set[str]:
    return {f"{module}.{name}" for module, names in SCHEDULES.items() for name in names}


def _is_ours(cls: type) -> bool:
    """Whether a class may be named by a file: a layer or an optimizer of the packages that agents are made of."""
    ours = any(f"{cls.__module__}.".startswith(f"{module}.") for module in MODULES)
    return ours and "<" not in cls.__qualname__ and issubclass(cls, nn.Module | torch.optim.Optimizer)


def _found(name: str) -> Any:
    module, _, cls = name.rpartition(".")
    return getattr(importlib.import_module(module), cls)


def _torch_dtype(name: Any) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"'{name}' is no dtype")
    return dtype
