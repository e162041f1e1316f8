"""Small environments that need memory, solved in seconds to minutes on a processor."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class MaskVelocities(gymnasium.ObservationWrapper):
    """CartPole without its velocities: observations (cart position, pole angle), so that speed must be remembered.

    :param env: a CartPole environment
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, spaces.Box)
        self.observation_space = spaces.Box(space.low[::2], space.high[::2], dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[::2]  # position, velocity, angle, angular velocity -> position, angle


def make_masked_cartpole(render_mode: str | None = None) -> gymnasium.Env:
    """CartPole-v1 with the velocities masked; random play lasts about 20 steps, the limit is 500."""
    return MaskVelocities(gymnasium.make("CartPole-v1", render_mode=render_mode))


class RepeatFirst(gymnasium.Env):
    """Name the first cue at the end: an exact test of memory.

    The first observation shows one of ``n_cues`` cues, one-hot; the following ``length - 1`` show noise cues of the
    same form. The last component is 1 at the last observation, and only the action taken there is rewarded: 1 for the
    first cue, 0 for any other. The mean return is 1 with memory and ``1 / n_cues`` without.

    :param n_cues: number of cues, and of actions
    :param length: observations per episode
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, n_cues: int = 4, length: int = 16) -> None:
        self.n_cues = n_cues
        self.length = length
        self.observation_space = spaces.Box(0.0, 1.0, (n_cues + 1,), dtype=np.float32)
        self.action_space = spaces.Discrete(n_cues)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._cues = self.np_random.integers(self.n_cues, size=self.length)
        self._time = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        last = self._time == self.length - 1
        reward = float(last and action == self._cues[0])
        self._time = min(self._time + 1, self.length - 1)
        return self._observation(), reward, last, False, {}

    def _observation(self) -> np.ndarray:
        observation = np.zeros(self.n_cues + 1, dtype=np.float32)
        observation[self._cues[self._time]] = 1.0
        observation[-1] = self._time == self.length - 1
        return observation
