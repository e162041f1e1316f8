"""An environment in which everything can be known in advance."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class AnyAction(gym.Env):
    """Takes any action of a space, and nothing else."""

    observation_space = spaces.Box(0, 1, (1,))

    def __init__(self, action_space: spaces.Space) -> None:
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return np.zeros(1, np.float32), 0.0, False, False, {}


ACTION_SPACES = [
    spaces.Discrete(3),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(3),
    spaces.Box(-0.1, 0.1, (2,)),
    spaces.Box(-0.1, 0.1, (2, 3)),
]


class Counter(gym.Env):
    """Observes its own step number; ends at ``length``, by time limit or for good. Reward 1 per step."""

    observation_space = spaces.Box(0, 1000, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, length: int, truncate: bool = False) -> None:
        self.length, self.truncate, self.t = length, truncate, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.array([0.0], np.float32), {}

    def step(self, action):
        self.t += 1
        over = self.t == self.length
        return np.array([self.t], np.float32), 1.0, over and not self.truncate, over and self.truncate, {}
