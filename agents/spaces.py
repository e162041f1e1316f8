"""Which spaces of observations and actions a policy can have, and how observations are handled alike in all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

NOT_FROM_0, UNBOUNDED = "which does not count from 0", "which has no bounds to clip actions to"
HINTS = {
    NOT_FROM_0: "take its start off in the environment",
    UNBOUNDED: "gymnasium.wrappers.TransformAction can give it some",
}


def require_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Refuse spaces that a policy cannot have.

    :raises ValueError: naming the space and what would help
    """
    parts = dict(observation_space) if isinstance(observation_space, spaces.Dict) else {"": observation_space}
    readable = [key for key, space in parts.items() if not _fault(space)]
    hint = "gymnasium.wrappers.FlattenObservation may bring it into the form of a Box"
    if readable:
        hint = f"gymnasium.wrappers.FilterObservation(env, {readable}) keeps what can be read"
    for key, space in parts.items():
        _require(f"observation_space {f'has {key!r}:' if key else 'is'}", space, _fault(space), hint)
    hint = "make it one Discrete, MultiDiscrete, MultiBinary or Box of one dimension in the environment"
    _require("action_space is", action_space, _fault(action_space, action=True), hint)


def _require(which: str, space: spaces.Space, fault: str, hint: str) -> None:
    if fault:
        raise ValueError(f"the {which} {' '.join(str(space).split())}, {fault}: {HINTS.get(fault, hint)}")


def _fault(space: spaces.Space, action: bool = False) -> str:
    """What is wrong with a space, of observations or actions; empty where nothing is."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return "which consists of other spaces"
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return "which is none of Box, Discrete, MultiDiscrete and MultiBinary"
    if isinstance(space, spaces.Box):
        if action:
            return "" if np.isfinite([space.low, space.high]).all() else UNBOUNDED
        return "" if space.shape else "which has no dimension"
    if np.any(getattr(space, "start", 0)):
        return NOT_FROM_0
    table = len(space.shape or ()) > 1 and (action or isinstance(space, spaces.MultiDiscrete))
    return "which has several dimensions" if table else ""


def map_obs(function: Callable[..., Any], *observations: Any) -> Any:
    """Apply a function to one or several observations; where they are dictionaries, to what they hold by each key."""
    first = observations[0]
    if isinstance(first, dict):
        return {key: function(*(obs[key] for obs in observations)) for key in first}
    return function(*observations)
