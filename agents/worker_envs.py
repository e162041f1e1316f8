"""Environments for workers: a recipe travels to each worker, which builds its own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from ..common.checks import require_choice
from ..envs import make_vec_env
from .spaces import require_spaces

EnvFactory = Callable[[int, int], VecEnv]
"""``factory(n_envs, seed)`` -> a vector environment of ``n_envs`` environments, the i-th seeded with ``seed + i``."""


def env_factory(env: str | EnvFactory, env_kwargs: dict[str, Any] | None = None) -> EnvFactory:
    """A factory from an id or a factory.

    :param env: id of a registered environment, or a factory
    :param env_kwargs: arguments of ``make_vec_env``, such as ``dict(frame_skip=4)``; for an id only
    :raises ValueError: if ``env`` is neither, or arguments are given that a factory would not get
    """
    if isinstance(env, str):
        options = [name for name in inspect.signature(make_vec_env).parameters if name not in ("id", "n_envs", "seed")]
        for name in env_kwargs or {}:
            require_choice("option of make_vec_env", name, options)
        return functools.partial(_from_id, env, env_kwargs or {}, gymnasium.registry.get(env))
    if not callable(env):
        raise ValueError(
            "A3C and IMPALA take an environment id or a function (n_envs, seed) -> VecEnv, not a finished "
            f"{type(env).__name__}: each worker builds environments of its own"
        )
    if env_kwargs:
        raise ValueError("env_kwargs go with an environment id; bind the arguments of a factory with functools.partial")
    try:
        inspect.signature(env).bind(1, 0)
    except TypeError as error:
        raise ValueError(f"an environment factory must be a function (n_envs, seed) -> VecEnv, but: {error}") from error
    return env


def build_env(factory: EnvFactory, n_envs: int, seed: int) -> VecEnv:
    """Call a factory and check what it returns; images become channel-first.

    :raises ValueError: if that is no vector environment of ``n_envs`` environments that workers could share, or it has
        spaces that no policy can have
    """
    env = factory(n_envs, seed)
    if not isinstance(env, VecEnv):
        raise ValueError(f"an environment factory must return a VecEnv, got {type(env).__name__}")
    if env.num_envs != n_envs:
        raise ValueError(f"the environment factory was asked for {n_envs} environments and returned {env.num_envs}")
    if unwrap_vec_normalize(env) is not None:
        raise ValueError("VecNormalize does not work with A3C and IMPALA: each worker would have statistics of its own")
    require_spaces(env.observation_space, env.action_space)  # before SB3 fails on them
    return BaseAlgorithm._wrap_env(env)


def _from_id(env_id: str, env_kwargs: dict[str, Any], spec: EnvSpec | None, n_envs: int, seed: int) -> VecEnv:
    if spec is not None:  # which the user's script may have registered, and this process has not
        gymnasium.registry.setdefault(spec.id, spec)
    threads = 1 if env_kwargs.get("n_threads") is None else env_kwargs["n_threads"]  # the others are other workers'
    return make_vec_env(env_id, n_envs, seed=seed, **env_kwargs | {"n_threads": threads})
