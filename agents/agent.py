"""An agent at work: a model with the state of its memory, for whoever steps the environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import maybe_transpose

Observation = np.ndarray | dict[str, np.ndarray]


class Agent:
    """A model that carries the state of its memory from one observation to the next, where ``predict`` wants to be
    given it.

    Observations are single ones, shaped as the observation space says, or batches [N, ...], one for each of N
    environments; which of them, and how many, stays the same until ``reset()``.

    :param model: ``MemoryPPO``, ``A3C``, or any other model or policy with the ``predict`` of Stable-Baselines3
    """

    def __init__(self, model: BaseAlgorithm | BasePolicy) -> None:
        self.model = model
        self.state: Any = None  # what `predict` returned last
        self.starts: np.ndarray | None = None  # [N], true where an episode begins with the next observation; None: all
        self.n_envs: int | None = None  # of the observations so far; None: single ones

    def act(self, obs: Observation, deterministic: bool = True, action_masks: np.ndarray | None = None) -> np.ndarray:
        """The action for one observation, or the actions [N, ...] for a batch of N.

        :param obs: what the environment shows now, one or a batch; of parts by name where the space is a dictionary
        :param deterministic: whether to take the most probable action instead of a sampled one
        :param action_masks: which actions are allowed, as the environments' ``action_masks()`` says; None: all
        :raises ValueError: if masks or observations do not have the shape that the model was trained on, or are of
            another number of environments than before
        """
        n_envs = self._count(obs)
        if self.starts is not None and n_envs != self.n_envs:
            raise ValueError(
                f"the agent remembers {_several(self.n_envs)}, but was shown {_several(n_envs)}: reset() lets it begin "
                "anew"
            )
        self.n_envs = n_envs
        starts = np.ones(n_envs or 1, dtype=bool) if self.starts is None else self.starts
        masks = {} if action_masks is None else {"action_masks": action_masks}
        actions, self.state = self.model.predict(obs, self.state, starts, deterministic, **masks)
        self.starts = np.zeros(n_envs or 1, dtype=bool)
        return actions

    def reset(self, mask: np.ndarray | bool | None = None) -> None:
        """Let episodes begin with the next observation: what was remembered of earlier ones is forgotten, exactly.

        :param mask: which of N environments begin a new episode [N], such as ``dones`` of a step; of a single one, true
            or false. None: all, of any number from now on
        :raises ValueError: if it is not of as many environments as the observations
        """
        if mask is None:
            self.state = self.starts = self.n_envs = None
            return
        chosen = np.asarray(mask)
        if chosen.dtype != bool or chosen.ndim > 1:
            raise ValueError(f"the mask must be true or false for each environment, got {mask!r}")
        if self.starts is not None:
            if chosen.size != len(self.starts) or (chosen.ndim == 0 and self.n_envs is not None):
                raise ValueError(
                    f"the mask must be true or false for each environment, got the shape {chosen.shape} for "
                    f"{_several(self.n_envs)}"
                )
            self.starts = self.starts | chosen.reshape(-1)

    def _count(self, obs: Observation) -> int | None:
        """Of how many environments these are observations; None: it is a single one."""
        space = self.model.observation_space
        parts: dict[str, spaces.Space] = dict(space) if isinstance(space, spaces.Dict) else {"": space}
        given = obs if isinstance(space, spaces.Dict) else {"": obs}
        if not isinstance(given, dict) or given.keys() != parts.keys():
            names = f"of {', '.join(given)}" if isinstance(given, dict) else f"of the type {type(given).__name__}"
            raise ValueError(f"observations must be dictionaries of {', '.join(parts)}, got one {names}")
        counts = {_leading(name, given[name], part) for name, part in parts.items()}
        if len(counts) > 1:
            raise ValueError("the parts of an observation must all be single ones, or all of as many environments")
        return counts.pop()


def _leading(name: str, obs: Any, space: spaces.Space) -> int | None:
    """The number of rows of a part of an observation; None where it is a single one."""
    if isinstance(obs, dict):
        raise ValueError(f"observations must be arrays, got a dictionary of {', '.join(map(str, obs))}")
    array, expected = np.asarray(obs), space.shape or ()
    shape = maybe_transpose(array, space).shape if array.ndim in (3, 4) else array.shape
    if shape == expected:
        return None
    if len(shape) == len(expected) + 1 and shape[1:] == expected and shape[0]:
        return shape[0]
    of = f"'{name}' of an observation" if name else "an observation"
    raise ValueError(f"{of} must have the shape {expected}, or [N, ...] for N environments, got {shape}")


def _several(n_envs: int | None) -> str:
    return "one environment" if n_envs is None else f"a batch of {n_envs} environment(s)"
