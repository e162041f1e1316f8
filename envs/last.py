"""What an agent did and what it got for it, as further parts of its observations."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from ..common.options import require_options

OBSERVATION, LAST_ACTION, LAST_REWARD = "observation", "last_action", "last_reward"


class LastActionReward(VecEnvWrapper):
    """Show the last action and the last reward beside each observation, as Wang et al. (2016), "Learning to
    reinforcement learn", do: a memory then knows what its own actions led to.

    Observations become dictionaries: the parts that they had, or ``observation`` where they had none, and

    * ``last_action``, float32 [N, A]: one-hot where actions are numbers, one-hot codes side by side where they are
      several numbers, else as the environment took them, flattened;
    * ``last_reward``, float32 [N, 1]: as the environment gave it, clipped or scaled by no one.

    Both are zero in the first observation of an episode, where nothing has been done yet. The last observation of an
    episode (``terminal_observation``) has those of its last step.

    :param venv: a vector environment, with images as the policy takes them (channels first)
    :param last_action: whether to show the last action
    :param last_reward: whether to show the last reward
    :raises ValueError: if an observation has a part of that name already, or actions have no numbers to show
    """

    def __init__(self, venv: VecEnv, last_action: bool = True, last_reward: bool = True) -> None:
        require_options(LastActionReward, {"last_action": last_action, "last_reward": last_reward})
        space, actions = venv.observation_space, venv.action_space
        self._in_parts = isinstance(space, spaces.Dict)
        parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {OBSERVATION: space}
        shown: dict[str, spaces.Box] = {}
        if last_action:
            shown[LAST_ACTION] = spaces.Box(*action_bounds(actions), dtype=np.float32)
        if last_reward:
            shown[LAST_REWARD] = spaces.Box(-np.inf, np.inf, (1,), dtype=np.float32)
        for name in shown.keys() & parts.keys():
            raise ValueError(f"observations have a part '{name}' already: leave {name} out, or rename theirs")
        self._shown = tuple(shown)
        super().__init__(venv, spaces.Dict(parts | shown))
        self._actions = np.zeros(0)  # of the step under way

    def reset(self) -> dict[str, np.ndarray]:
        nothing = {name: np.zeros((self.num_envs, *self._part(name).shape), np.float32) for name in self._shown}
        return self._parts(self.venv.reset()) | nothing

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.array(actions)  # a copy, for the caller may use the array again
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        last = {LAST_ACTION: lambda: encode_actions(self.action_space, self._actions), LAST_REWARD: lambda: rewards}
        shown = {name: np.array(last[name](), np.float32).reshape(self.num_envs, -1) for name in self._shown}
        for i in dones.nonzero()[0]:
            final = self._parts(infos[i]["terminal_observation"])
            infos[i]["terminal_observation"] = final | {name: values[i].copy() for name, values in shown.items()}
        for values in shown.values():
            values[dones] = 0.0
        return self._parts(observations) | shown, rewards, dones, infos

    def _parts(self, observation: Any) -> dict[str, Any]:
        return dict(observation) if self._in_parts else {OBSERVATION: observation}

    def _part(self, name: str) -> spaces.Box:
        assert isinstance(self.observation_space, spaces.Dict)
        part = self.observation_space[name]
        assert isinstance(part, spaces.Box)
        return part


def action_bounds(space: spaces.Space) -> tuple[np.ndarray, np.ndarray]:
    """Between which numbers, each [A], an action lies as ``encode_actions`` writes it; zero, which stands for none, is
    among them.

    :raises ValueError: if actions are none of Discrete, MultiDiscrete, MultiBinary and Box
    """
    if isinstance(space, spaces.Box):
        low, high = np.minimum(space.low, 0), np.maximum(space.high, 0)
        return low.astype(np.float32).ravel(), high.astype(np.float32).ravel()
    if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise ValueError(f"last_action shows numbers, but the actions are of the kind {type(space).__name__}")
    width = np.prod(space.shape) if isinstance(space, spaces.MultiBinary) else sum(_choices(space))
    return np.zeros(int(width), np.float32), np.ones(int(width), np.float32)


def encode_actions(space: spaces.Space, actions: np.ndarray) -> np.ndarray:
    """Actions [N, ...] as vectors [N, A]."""
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return actions.reshape(len(actions), -1)
    numbers = actions.reshape(len(actions), -1) - np.ravel(getattr(space, "start", 0))  # [N, n]
    codes = [np.eye(n)[column] for n, column in zip(_choices(space), numbers.astype(int).T, strict=True)]
    return np.concatenate(codes, axis=1)


def _choices(space: spaces.Space) -> list[int]:
    """Among how many actions each number of an action chooses."""
    return [int(space.n)] if isinstance(space, spaces.Discrete) else np.ravel(space.nvec).tolist()  # type: ignore[attr-defined]
