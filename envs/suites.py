"""Suites of memory tests in other packages: found by their ids, and brought into the form that SB3 takes."""

from __future__ import annotations

import importlib
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import FilterObservation, FlattenObservation

SUITES = {"popgym-": "popgym", "MiniGrid-": "minigrid"}
"""The package of ids that begin so, which is also the name of the extra that installs it."""


def import_suite(id: str) -> None:
    """Import the package that registers an id, if the id is of a suite.

    :raises ValueError: if it cannot be imported
    """
    for prefix, package in SUITES.items():
        if id.startswith(prefix):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise ValueError(
                    f"'{id}' needs the package {package}, which `pip install relmem[{package}]` installs: {error}"
                ) from error


def wrap_suite(id: str, env: gymnasium.Env) -> gymnasium.Env:
    """Bring an environment of a suite into the form that its published figures are of; others stay as they are.

    POPGym (Morad et al. 2023): ``LastAction``. MiniGrid: the cells that are seen, one-hot in one array, without the
    mission's text and the agent's direction.
    """
    if id.startswith("popgym-"):
        return LastAction(env)
    if id.startswith("MiniGrid-"):
        from minigrid.wrappers import OneHotPartialObsWrapper  # type: ignore[import-not-found,unused-ignore]

        return FlattenObservation(FilterObservation(OneHotPartialObsWrapper(env), ["image"]))
    return env


class LastAction(gymnasium.Wrapper[np.ndarray, Any, Any, Any], RecordConstructorArgs):
    """Observations beside the last action and a mark of an episode's first one, numbers one-hot, all in one array.

    With the first observation the last action is 0, or where that is none, the lowest.

    :param env: an environment whose observations and actions are numbers, arrays, or tuples or dictionaries of these
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._parts = spaces.Tuple((env.observation_space, env.action_space, spaces.Discrete(2)))
        flat = spaces.flatten_space(self._parts)
        assert isinstance(flat, spaces.Box)
        self.observation_space = spaces.Box(flat.low, flat.high, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._all(obs, _null(self.env.action_space), first=True), info

    def step(self, action: Any) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._all(obs, action, first=False), reward, terminated, truncated, info

    def _all(self, obs: Any, action: Any, first: bool) -> np.ndarray:
        return np.asarray(spaces.flatten(self._parts, (obs, action, int(first))), dtype=np.float32)


def _null(space: spaces.Space) -> Any:
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    return space.start if isinstance(space, spaces.Discrete) else np.zeros(space.shape, space.dtype)
