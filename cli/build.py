"""Environments and models from a ``TrainConfig``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from stable_baselines3.common.vec_env import VecEnv

from ..agents import A3C, MemoryActorCriticPolicy, MemoryPPO
from ..agents.cores.registry import core_options
from ..envs import make_vec_env
from .config import A3CConfig, TrainConfig, VecEnvConfig


def make_env(config: TrainConfig, n_envs: int, seed: int) -> VecEnv:
    """``n_envs`` environments of a run, for training or evaluation.

    :raises ValueError: if the environment is unknown or its ROM is missing
    """
    return make_vec_env(config.env.id, n_envs, seed=seed % 2**31, **_env_kwargs(config))


def _env_kwargs(config: TrainConfig) -> dict[str, Any]:
    env = config.env
    return {"frame_skip": env.frame_skip, "image_size": env.image_size, "env_kwargs": env.kwargs}


def make_model(config: TrainConfig) -> MemoryPPO | A3C:
    """A fresh model with its environments.

    :raises ValueError: if an option does not fit the environment or another option
    """
    require_device(config.device)
    arguments = config.algo.arguments() | {
        "policy_kwargs": {
            "core": config.core["name"],
            "core_kwargs": config.core_kwargs,
            **vars(config.policy),
        },
        "precision": config.precision,
        "seed": config.seed,
        "device": config.device,
    }
    if isinstance(config.env, VecEnvConfig):
        env = make_env(config, config.env.n_envs, config.seed)
        return MemoryPPO(MemoryActorCriticPolicy, env, **arguments)
    return A3C(MemoryActorCriticPolicy, config.env.id, env_kwargs=_env_kwargs(config), **arguments)


def load_model(config: TrainConfig, checkpoint: Path) -> MemoryPPO | A3C:
    """The model of a checkpoint, to be trained further. Seeds move on with the steps taken.

    :raises ValueError: if the file is no checkpoint, or of another core, observation space or action space
    """
    require_device(config.device)
    algorithm: type[MemoryPPO | A3C] = MemoryPPO
    hardware: dict[str, Any] = {"device": config.device, "precision": config.precision}
    if isinstance(config.algo, A3CConfig):
        algorithm = A3C
        hardware["workers"] = config.algo.workers
    try:
        model = algorithm.load(checkpoint, **hardware)
    except (AssertionError, BadZipFile, EOFError, KeyError) as error:
        raise ValueError(f"'{checkpoint}' is no checkpoint of {algorithm.__name__}") from error
    asked = dict(core=config.core["name"], **config.core_kwargs)
    if _spelt_out(core=model.policy.core_name, **model.policy.core_kwargs) != _spelt_out(**asked):
        raise ValueError(
            f"checkpoint '{checkpoint}' holds the core '{model.policy.core_name}' with {model.policy.core_kwargs}, "
            f"but the run asks for '{config.core['name']}' with {config.core_kwargs}"
        )
    if isinstance(config.env, VecEnvConfig):
        env: Any = make_env(config, config.env.n_envs, config.seed + model.num_timesteps)
    else:
        env = config.env.id
    try:
        model.set_env(env)
    except ValueError as error:
        raise ValueError(f"checkpoint '{checkpoint}' does not go with {config.env.id}: {error}") from error
    return model


def _spelt_out(core: str, **options: Any) -> dict[str, Any]:
    """A core's options, the default ones included: a checkpoint may be older than some of them."""
    return {"core": core} | {name: option.default for name, option in core_options(core).items()} | options


def require_device(name: str) -> None:
    """Refuse a device that there is not.

    :raises ValueError: if it is unknown, or torch finds none
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError(f"unknown device '{name}': choose auto, cpu, cuda or cuda:N")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device '{name}' is not available here: torch finds no CUDA")
    if name.startswith("cuda:") and int(name.removeprefix("cuda:")) >= torch.cuda.device_count():
        raise ValueError(f"device '{name}' is not available here: torch finds {torch.cuda.device_count()}, from cuda:0")
