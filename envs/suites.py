"""Suites of memory tests in other packages: found by their ids, and brought into the form that SB3 takes."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
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


def registered_envs() -> dict[str, str]:
    """The package that each registered id is of, those of suites that are installed included."""
    for prefix in SUITES:
        with suppress(ValueError):
            import_suite(prefix)
    return {id: package_of(spec) for id, spec in gymnasium.registry.items()}


def package_of(spec: EnvSpec) -> str:
    """Where an environment comes from, or the outermost of its wrappers."""
    places = [spec.entry_point, *(wrapper.entry_point for wrapper in spec.additional_wrappers)]
    return str(getattr(places[-1], "__module__", places[-1])).partition(".")[0].partition(":")[0]


def wrap_suite(id: str, env: gymnasium.Env) -> gymnasium.Env:
    """Bring the observations of a suite's environment into one array; other environments stay as they are.

    POPGym: ``POPGymObservation``. MiniGrid: the cells that are seen, one-hot, without the mission's text and the
    agent's direction.
    """
    if id.startswith("popgym-"):
        return POPGymObservation(env)
    if id.startswith("MiniGrid-"):
        from minigrid.wrappers import OneHotPartialObsWrapper  # type: ignore[import-not-found,unused-ignore]

        return FlattenObservation(FilterObservation(OneHotPartialObsWrapper(env), ["image"]))
    return env


class POPGymObservation(gymnasium.Wrapper[np.ndarray, Any, Any, Any], RecordConstructorArgs):
    """Observations of the form that POPGym's published figures are of (Morad et al. 2023, https://arxiv.org/abs/2303.01859):
    what was observed, the last action (0 at an episode's first observation) and a mark of that first one, numbers
    one-hot, all in one array.

    :param env: an environment whose actions are numbers or arrays, one of them 0 or all zeros
    :raises ValueError: if that is no action
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._no_action = np.zeros(env.action_space.shape or (), env.action_space.dtype)
        if not env.action_space.contains(self._no_action):
            raise ValueError(f"the first observation shows the action 0, which is none of {env.action_space}")
        self._parts = spaces.Tuple((env.observation_space, env.action_space, spaces.Discrete(2)))
        flat = spaces.flatten_space(self._parts)
        assert isinstance(flat, spaces.Box)
        self.observation_space = spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32), dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._all(obs, self._no_action, first=True), info

    def step(self, action: Any) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._all(obs, action, first=False), reward, terminated, truncated, info

    def _all(self, obs: Any, action: Any, first: bool) -> np.ndarray:
        return np.asarray(spaces.flatten(self._parts, (obs, action, int(first))), dtype=np.float32)
