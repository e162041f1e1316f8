"""Flicker: now and then an observation is blank, so that what it would have shown must be remembered."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.core import ActType
from gymnasium.utils import RecordConstructorArgs

from ..common.options import Fraction, require_option


class Flicker(gymnasium.Wrapper[np.ndarray, ActType, np.ndarray, ActType], RecordConstructorArgs):
    """Blank each observation, to all zeros, with a fixed probability (Hausknecht and Stone 2015, flickering Pong).

    Every observation has one draw, in the order in which they come: that of a reset, that of each step, and so that of
    the last step of an episode too. The draws are seeded by ``reset(seed=...)``, apart from those of the environment.

    :param env: an environment whose observations are arrays
    :param probability: that an observation is blank
    :raises ValueError: if the probability is not in 0 to 1, or the observations are no arrays
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, ActType], probability: Fraction) -> None:
        require_option("probability", Fraction, probability)
        space = env.observation_space
        if not isinstance(space, spaces.Box):
            raise ValueError(f"flicker blanks observations that are one array, and these are of {type(space).__name__}")
        RecordConstructorArgs.__init__(self, probability=probability)
        super().__init__(env)
        self._blanks = Blanks(probability, 1)
        zero = space.dtype.type(0)
        if not space.contains(np.zeros(space.shape, space.dtype)):
            low, high = np.minimum(space.low, zero), np.maximum(space.high, zero)
            self.observation_space = spaces.Box(low, high, dtype=space.dtype.type)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        if seed is not None:
            self._blanks.seed([seed])
        obs, info = self.env.reset(seed=seed, options=options)
        return self._seen(obs), info

    def step(self, action: ActType) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._seen(obs), reward, terminated, truncated, info

    def _seen(self, obs: np.ndarray) -> np.ndarray:
        return np.zeros_like(obs) if self._blanks.draw(0) else obs


class Blanks:
    """Draws which observations are blank; every environment has random numbers of its own.

    :param probability: that an observation is blank
    :param n_envs: number of environments
    """

    def __init__(self, probability: float, n_envs: int) -> None:
        self.probability = probability
        self.generators = [np.random.default_rng() for _ in range(n_envs)]

    def seed(self, seeds: list[int]) -> None:
        """Begin anew, one seed for each environment, of 31 bits, as ALE takes them. The 1 beside it makes these numbers
        others than those that the environment draws by the same seed."""
        self.generators = [np.random.default_rng([seed % 2**31, 1]) for seed in seeds]

    def draw(self, i: int) -> bool:
        """Whether the next observation of environment i is blank."""
        return self.probability > 0 and self.generators[i].random() < self.probability
