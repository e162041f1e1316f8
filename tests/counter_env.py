"""An environment in which everything can be known in advance."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor


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


class BatchNormFeatures(BaseFeaturesExtractor):
    """Counts how often it has seen observations in training mode."""

    def __init__(self, observation_space: spaces.Space) -> None:
        super().__init__(observation_space, observation_space.shape[0])
        self.norm = torch.nn.BatchNorm1d(observation_space.shape[0])

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.norm(observations)


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
