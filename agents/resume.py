"""Where a training is: everything that it needs, beside policy and optimizer, to go on as if nothing had been."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from ..common.exact import exact_copy
from ..common.generators import generators
from ..envs.state import load_state, save_state
from .cores import State


class Moment(NamedTuple):
    """A moment of a training, taken down: values by name, of kinds that a file can hold."""

    parts: dict[str, Any]

    def get(self, name: str) -> Any:
        """A part as it was when the moment was taken, for whoever changes it."""
        return exact_copy(self.parts[name])

    @property
    def why_not_exact(self) -> str:
        """Why environments cannot be taken up in the middle of an episode; empty where that is not known."""
        places = self.parts.get("places")  # of several processes
        if why := str((places[0] if places else self.parts).get("env", {}).get("why", "")):
            return why
        return f"{len(places)} processes were in one, and as many have to go on" if places else ""

    def to_bytes(self) -> bytes:
        """For another process: tensors themselves would be sent as memory that this process shares, and it may end
        before they are looked at."""
        return pickle.dumps(self.parts)

    @classmethod
    def from_bytes(cls, content: bytes) -> Moment:
        """From another process of this program."""
        return cls(pickle.loads(content))


def take_moment(env: VecEnv | None, place: tuple[Any, np.ndarray, State] | None, **parts: Any) -> Moment:
    """Take down this moment, with the generators of this process.

    :param env: where the training plays; None: nowhere
    :param place: last observations, where they begin an episode, and the memory before them; None: before the first
    :param parts: what else is to be kept, by name
    :raises NotExact: if a part has no exact copy
    """
    parts["generators"] = generators()
    taken = {name: exact_copy(part) for name, part in parts.items()}
    if env is not None and place is not None:
        obs, starts, state = place
        obs = dict(obs) if isinstance(obs, dict) else obs  # as SB3's may be ordered
        taken["place"] = exact_copy([obs, starts, None if state is None else tuple(state)])
        taken["env"] = save_state(env)
    return Moment(taken)


def return_to_place(moment: Moment, env: VecEnv, state: State) -> tuple[Any, np.ndarray, State] | None:
    """Bring environments to where they were, and return last observations, starts and memory; None where episodes
    begin anew.

    :param state: any of the core, where it computes
    :raises ValueError: if the environments are others
    """
    if "env" not in moment.parts or not load_state(env, moment.get("env")):
        return None
    obs, starts, leaves = moment.get("place")
    placed = None if leaves is None else type(state)(*(leaf.to(state[0].device) for leaf in leaves))
    return obs, starts, placed


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
