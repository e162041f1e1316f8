"""Which spaces of observations and actions a policy can have."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

SIMPLE = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def require_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Refuse spaces that a policy cannot have.

    :raises ValueError: naming the space and what would help
    """
    if isinstance(observation_space, spaces.Dict):
        parts = dict(observation_space.spaces)
        fine = [key for key, space in parts.items() if not _fault(space)]
        keep = f"keep what can be read, with gymnasium.wrappers.FilterObservation(env, {fine})" if fine else ""
    else:
        parts, keep = {"": observation_space}, ""
    for key, space in parts.items():
        if fault := _fault(space):
            name = f"observation '{key}'" if key else "observation_space"
            flat = "flatten it in the environment, with gymnasium.wrappers.FlattenObservation"
            raise ValueError(f"the {name} is {space}, {fault}: {keep or flat}")
    if isinstance(action_space, spaces.Dict | spaces.Tuple):
        raise ValueError(f"the action_space is {action_space}, a space of spaces: make it one MultiDiscrete or Box")
    if fault := _fault(action_space):
        raise ValueError(f"the action_space is {action_space}, {fault}: flatten it in the environment")
    if isinstance(action_space, spaces.MultiBinary) and len(action_space.shape) > 1:
        raise ValueError(f"the action_space is {action_space}, of several dimensions: flatten it in the environment")
    if isinstance(action_space, spaces.Box) and not np.isfinite([action_space.low, action_space.high]).all():
        raise ValueError(
            f"the action_space is {action_space}, without bounds, to which actions are clipped: give it finite ones, "
            "with gymnasium.wrappers.TransformAction"
        )
    for name, space in [*(("observation_space", s) for s in parts.values()), ("action_space", action_space)]:
        if np.any(getattr(space, "start", 0)):
            raise ValueError(
                f"the policy counts from 0, but the {name} has {space}: take its start off in the environment"
            )


def _fault(space: spaces.Space) -> str:
    """What is wrong with a space; empty where nothing is."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return "a space of spaces"
    if not isinstance(space, SIMPLE):
        return "which is none of Box, Discrete, MultiDiscrete and MultiBinary"
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) > 1:
        return "of several dimensions"
    return ""
