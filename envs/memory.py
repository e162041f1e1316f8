"""Small environments that need memory, solved in seconds to minutes on a processor."""

from __future__ import annotations

from typing import Annotated, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from ..common.options import Count, Range, require_options


class MaskVelocities(gymnasium.ObservationWrapper, RecordConstructorArgs):
    """CartPole without its velocities: observations (cart position, pole angle), so that motion must be remembered.

    :param env: a CartPole environment
    """

    def __init__(self, env: gymnasium.Env) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, spaces.Box)
        self.observation_space = spaces.Box(space.low[::2], space.high[::2], dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[::2]  # (position, velocity, angle, angular velocity) -> (position, angle)


class RepeatFirst(gymnasium.Env[np.ndarray, np.int64]):
    """Name the first cue at the end: an exact test of memory.

    Each of the ``length`` observations shows one of ``n_cues`` cues, one-hot; only the first matters. The last
    component is 1 at the last observation, and only the action taken there is rewarded: 1 for the first cue, 0 for any
    other. The mean return is 1 with memory and at best ``1 / n_cues`` without.

    :param n_cues: number of cues, and of actions
    :param length: observations per episode; with a single one there is nothing to remember
    :raises ValueError: if an argument is out of range
    """

    def __init__(self, n_cues: Count = 4, length: Annotated[int, Range(2)] = 16) -> None:
        require_options(RepeatFirst, locals())
        self.n_cues = n_cues
        self.length = length
        self.observation_space = spaces.Box(0.0, 1.0, (n_cues + 1,), dtype=np.float32)
        self.action_space = spaces.Discrete(n_cues)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._cues = self.np_random.integers(self.n_cues, size=self.length)
        self._time = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        last = self._time == self.length - 1
        reward = float(last and action == self._cues[0])
        if not last:
            self._time += 1
        return self._observation(), reward, last, False, {}

    def _observation(self) -> np.ndarray:
        observation = np.zeros(self.n_cues + 1, dtype=np.float32)
        observation[self._cues[self._time]] = 1.0
        observation[-1] = self._time == self.length - 1
        return observation
