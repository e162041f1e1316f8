"""Action masks: which actions an environment allows at the moment, asked for as by sb3-contrib's ``MaskablePPO``.

A mask is bool [N, M], true where a choice is allowed. M counts the choices: of Discrete its n actions, of
MultiDiscrete those of all its numbers in a row, of MultiBinary two for each bit, 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import MaskableDistribution, make_masked_proba_distribution
from sb3_contrib.common.maskable.utils import EXPECTED_METHOD_NAME, get_action_masks, is_masking_supported
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor


def mask_reader(env: VecEnv) -> Callable[[], np.ndarray | None]:
    """What reads the masks [N, M] of environments as they stand, each time it is called: of all of them or, if one has
    no method ``action_masks``, of none, which is None.

    :raises ValueError: when it is called, if a mask has the wrong shape or allows nothing
    """
    if not is_masking_supported(env):  # asked once: of other processes, each answer takes its time
        return lambda: None
    choices(env.action_space)

    def read() -> np.ndarray:
        try:
            masks = get_action_masks(env)
        except ValueError as error:  # NumPy's, if they differ in shape
            raise ValueError(f"the environments' {EXPECTED_METHOD_NAME}() differ in shape: {error}") from error
        return require_masks(masks, env.action_space, env.num_envs)

    return read


def require_masks(masks: Any, space: spaces.Space, n_envs: int) -> np.ndarray:
    """Masks as bool [N, M], from anything with the same numbers in this order.

    :raises ValueError: if there are not so many, they are other numbers than 0 and 1, or nothing is allowed
    """
    groups, given = choices(space), np.asarray(masks)
    n_choices = sum(groups)
    if given.size != n_envs * n_choices or (n_envs > 1 and len(given) != n_envs):
        raise ValueError(
            f"{EXPECTED_METHOD_NAME} must say of each of {n_choices} choices of {n_envs} environment(s) whether it is "
            f"allowed, [{n_envs}, {n_choices}], got the shape {list(given.shape)}"
        )
    if given.dtype != np.bool_ and not np.isin(given, (0, 1)).all():
        raise ValueError(f"{EXPECTED_METHOD_NAME} must be true or false, got {np.array2string(given, threshold=8)}")
    allowed = given.astype(bool).reshape(n_envs, n_choices)
    begins = np.cumsum([0, *groups[:-1]])
    some = np.logical_or.reduceat(allowed, begins, axis=1)  # [N, number of groups]
    if not some.all():
        env, group = np.argwhere(~some)[0].tolist()
        part = f" for part {group} of its action" if len(groups) > 1 else ""
        raise ValueError(f"{EXPECTED_METHOD_NAME} of environment {env} allows nothing{part}")
    return allowed


def choices(space: spaces.Space) -> list[int]:
    """Among how many choices each part of an action is made.

    :raises ValueError: if actions are no choices
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.tolist()
    if isinstance(space, spaces.MultiBinary):
        return [2] * math.prod(space.shape)
    raise ValueError(
        f"{EXPECTED_METHOD_NAME} are for actions of Discrete, MultiDiscrete and MultiBinary, not for {space}"
    )


def masked_distribution(space: spaces.Space, logits: Tensor, masks: Tensor) -> MaskableDistribution:
    """The distribution over what is allowed.

    :param logits: of a policy without masks, so that its weights are the same: [B, M], of MultiBinary [B, M / 2]
    :param masks: [B, M]
    """
    if isinstance(space, spaces.MultiBinary):  # the logit of a bit is that of 1 over that of 0
        logits = torch.stack([torch.zeros_like(logits), logits], dim=-1).flatten(1)
    distribution = make_masked_proba_distribution(space).proba_distribution(logits)
    distribution.apply_masking(masks)
    return distribution
