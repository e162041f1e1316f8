"""Evaluation: whole episodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from ..common.options import Count, Positive, require_options
from .agent import Agent
from .base import MemoryAlgorithm
from .finite import require_numbers
from .masks import mask_reader


class Evaluation(NamedTuple):
    """The episodes that ended, in the order in which they did."""

    returns: list[float]
    lengths: list[int]  # in agent steps
    complete: bool  # whether they are all that were asked for; if not, long ones are missing


def evaluate(
    model: BaseAlgorithm,
    env: VecEnv,
    episodes: Count | None = None,
    seconds: Positive | None = None,
    progress: Callable[[int, int], object] | None = None,
    deterministic: bool = True,
) -> Evaluation:
    """Play episodes to their end.

    A model that was trained under a ``VecNormalize`` sees environments without one as it knows them, normalised by the
    statistics of its training; returns are of the rewards as they are.

    Environments with a method ``action_masks`` are asked which actions they allow, and an algorithm of ours plays no
    others.

    :param model: what acts
    :param env: is reset first. Each environment plays its share of the episodes, so that short ones do not come to
        count more than long ones
    :param episodes: how many; None: the first of each environment
    :param seconds: time after which episodes still running are left out; None: all are played to their end
    :param progress: called with the number of episodes that have ended and of all, whenever one ends
    :param deterministic: whether to take the most probable actions, or to sample them
    :raises FloatingPointError: if an environment gives numbers that are not finite
    :raises ValueError: if an environment's action mask has the wrong shape or allows nothing
    """
    require_options(evaluate, {"episodes": episodes, "seconds": seconds})
    total = env.num_envs if episodes is None else episodes
    left = (total + np.arange(env.num_envs)[::-1]) // env.num_envs  # [N], episodes that each has to play
    sums, steps = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=int)
    returns: list[float] = []
    lengths: list[int] = []
    deadline = time.monotonic() + (np.inf if seconds is None else seconds)
    env = model.normalized(env) if isinstance(model, MemoryAlgorithm) else env
    read_masks = mask_reader(env) if isinstance(model, MemoryAlgorithm) else lambda: None
    agent, obs = Agent(model), env.reset()
    while left.any() and time.monotonic() < deadline:
        require_numbers("observation", obs)
        obs, rewards, ended, _ = env.step(agent.act(obs, deterministic, read_masks()))  # type: ignore[arg-type]
        require_numbers("reward", rewards)
        sums, steps = sums + rewards, steps + 1
        for i in (ended & (left > 0)).nonzero()[0].tolist():
            returns.append(float(sums[i]))
            lengths.append(int(steps[i]))
            left[i] -= 1
            if progress is not None:
                progress(len(returns), total)
        sums[ended], steps[ended] = 0.0, 0
        agent.reset(ended)
    return Evaluation(returns, lengths, complete=not left.any())
