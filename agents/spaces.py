"""Which spaces of observations and actions a policy can have."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces


def require_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Refuse spaces that a policy cannot have.

    :raises ValueError: naming the space and what would help
    """
    parts = dict(observation_space) if isinstance(observation_space, spaces.Dict) else {"": observation_space}
    readable = [key for key, space in parts.items() if not _fault(space, observed=True)]
    for key, space in parts.items():
        if fault := _fault(space, observed=True):
            hint = "gymnasium.wrappers.FlattenObservation may bring it into the form of a Box"
            if readable:
                hint = f"gymnasium.wrappers.FilterObservation(env, {readable}) keeps what can be read"
            raise ValueError(
                f"the observation_space {f'has {key!r}:' if key else 'is'} {_line(space)}, {fault}: {hint}"
            )
    fault = _fault(action_space, observed=False)
    hint = "make it one Discrete, MultiDiscrete, MultiBinary or Box of one dimension in the environment"
    if isinstance(action_space, spaces.MultiBinary) and len(action_space.shape) > 1:
        fault = "which has several dimensions"
    if isinstance(action_space, spaces.Box) and not np.isfinite([action_space.low, action_space.high]).all():
        fault, hint = "which has no bounds to clip actions to", "gymnasium.wrappers.TransformAction can give it some"
    if fault:
        raise ValueError(f"the action_space is {_line(action_space)}, {fault}: {hint}")
    for name, space in [*(("observation_space", part) for part in parts.values()), ("action_space", action_space)]:
        if np.any(getattr(space, "start", 0)):
            raise ValueError(
                f"the policy counts from 0, but the {name} has {_line(space)}: take its start off in the environment"
            )


def _fault(space: spaces.Space, observed: bool) -> str:
    """What is wrong with a space, of observations or actions; empty where nothing is."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return "which consists of other spaces"
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return "which is none of Box, Discrete, MultiDiscrete and MultiBinary"
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) > 1:
        return "which has several dimensions"
    return "which has no dimension" if observed and isinstance(space, spaces.Box) and not space.shape else ""


def _line(space: spaces.Space) -> str:
    return " ".join(str(space).split())
