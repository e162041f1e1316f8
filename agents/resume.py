"""Where a training is: everything that it needs, beside policy and optimizer, to go on as if nothing had been."""

from __future__ import annotations

import pickle
import random
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from ..common.exact import Packer, unpack
from ..envs.state import load_state, save_state
from .cores import State


class Moment(NamedTuple):
    """A moment of a training: plain data, and the tensors that it names."""

    data: dict[str, Any]
    tensors: dict[str, Tensor]

    def get(self, name: str) -> Any:
        """A part as it was when the moment was taken."""
        return unpack(self.data[name], self.tensors)

    def to_bytes(self) -> bytes:
        """For another process: tensors themselves would be sent as memory that this process shares, and it may end
        before they are looked at."""
        return pickle.dumps((self.data, {name: tensor.numpy() for name, tensor in self.tensors.items()}))

    @classmethod
    def from_bytes(cls, content: bytes) -> Moment:
        """From another process of this program."""
        data, arrays = pickle.loads(content)
        return cls(data, {name: torch.from_numpy(array) for name, array in arrays.items()})


def take_moment(env: VecEnv | None, place: tuple[Any, np.ndarray, State] | None, **parts: Any) -> Moment:
    """Take down this moment, with the generators of this process.

    :param env: where the training plays; None: nowhere
    :param place: last observations, where they begin an episode, and the memory before them; None: before the first
    :param parts: what else is to be kept, by name
    :raises NotPlain: if a part has no exact form
    """
    packer, data = Packer(), {}
    for name, part in parts.items():
        packer.begin()
        data[name] = packer.pack(part)
    packer.begin()
    data["generators"] = packer.pack(generators())
    if env is not None and place is not None:
        obs, starts, state = place
        packer.begin()
        data["place"] = packer.pack([obs, starts, None if state is None else tuple(state)])
        data["env"] = save_state(env, packer)
    return Moment(data, packer.tensors)


def return_to_place(moment: Moment, env: VecEnv, state_type: Any) -> tuple[Any, np.ndarray, State] | None:
    """Bring environments to where they were, and return last observations, starts and memory; None where episodes
    begin anew.

    :param state_type: of the core's state
    :raises ValueError: if the environments are others
    """
    if "env" not in moment.data or not load_state(env, moment.data["env"], moment.tensors):
        return None
    obs, starts, leaves = moment.get("place")
    return obs, starts, None if leaves is None else state_type(*leaves)


def why_not_exact(moment: Moment) -> str:
    """Why environments cannot be taken up in the middle of an episode; empty where they can."""
    return moment.data["env"]["why"] if "env" in moment.data else ""


def generators() -> dict[str, Any]:
    """The states of all generators that this process draws from."""
    version, numbers, spare = random.getstate()
    return {
        "python": (version, np.array(numbers), spare),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
    }


def set_generators(states: dict[str, Any]) -> None:
    """Let this process draw what the one would have drawn, of which these are the ``generators``."""
    version, numbers, spare = states["python"]
    random.setstate((version, tuple(numbers.tolist()), spare))
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])


def pending(logger: Logger) -> list[dict[str, Any]]:
    """What was recorded for the log, and not written yet."""
    kinds = (int, float, str, np.generic)
    values = {name: value for name, value in logger.name_to_value.items() if isinstance(value, kinds)}
    counts = {name: logger.name_to_count[name] for name in values if name in logger.name_to_count}
    excluded = {name: list(logger.name_to_excluded.get(name) or ()) for name in values}
    return [values, counts, excluded]


def set_pending(logger: Logger, recorded: list[dict[str, Any]]) -> None:
    """Record again what was ``pending``."""
    values, counts, excluded = recorded
    logger.name_to_value.update(values)
    logger.name_to_count.update(counts)
    logger.name_to_excluded.update({name: tuple(formats) for name, formats in excluded.items()})
