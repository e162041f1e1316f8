"""Observations and rewards of unit variance: SB3's ``VecNormalize``, whose statistics a saved model holds as plain
numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from ..common.checks import require_choice
from ..common.options import options_of, require_option

SETTINGS = ("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys")

Normalization = dict[str, Any]
"""``settings`` of a ``VecNormalize`` by name, and its statistics: ``returns``, ``observations`` (None where these are
left as they are), the latter by key where observations are dictionaries; each as [mean, variance, count]."""


def normalize(env: VecEnv, **settings: Any) -> VecNormalize:
    """Wrap environments in a ``VecNormalize`` that learns its statistics. Of observations in parts, numbers are
    normalised, and images and whatever else stay as they are.

    :param settings: of ``VecNormalize``
    :raises ValueError: if one is unknown, or the observations are nothing to normalise
    """
    known = options_of(VecNormalize)
    for name, value in settings.items():
        require_choice("option of normalize", name, SETTINGS)
        require_option(f"normalize.{name}", known[name].hint, value)
    space = env.observation_space
    if settings.get("norm_obs", True):
        if isinstance(space, spaces.Dict):
            keys = [key for key, part in space.items() if isinstance(part, spaces.Box) and not is_image_space(part)]
            for key in settings.setdefault("norm_obs_keys", keys) or ():
                require_choice("part of observations to normalize", key, keys)
        elif not isinstance(space, spaces.Box) or is_image_space(space):
            raise ValueError(
                f"observations of {space} are no numbers to normalize (images are standardised by the features): "
                "{norm_obs: false} normalizes rewards alone"
            )
    return VecNormalize(env, **settings)


def normalization_of(env: VecNormalize) -> Normalization:
    """The settings of an environment and its statistics so far, as plain numbers."""
    rms: Any = env.obs_rms if env.norm_obs else None
    observations = {key: _numbers(of) for key, of in rms.items()} if isinstance(rms, dict) else rms and _numbers(rms)
    settings = {name: getattr(env, name) for name in SETTINGS}
    return {"settings": settings, "returns": _numbers(env.ret_rms), "observations": observations}


def take_statistics(env: VecNormalize, normalization: Normalization) -> None:
    """Let an environment go on from the statistics of another one."""
    env.ret_rms = _statistics(normalization["returns"])
    observations: Any = normalization["observations"]
    if isinstance(observations, dict):
        env.obs_rms = {key: _statistics(numbers) for key, numbers in observations.items()}
    elif observations is not None:
        env.obs_rms = _statistics(observations)  # type: ignore[assignment]


def frozen(env: VecEnv, normalization: Normalization) -> VecNormalize:
    """Wrap environments to evaluate in: observations by statistics that stay as they are, rewards untouched."""
    wrapped = VecNormalize(env, training=False, **normalization["settings"] | {"norm_reward": False})
    take_statistics(wrapped, normalization)
    return wrapped


def _numbers(rms: RunningMeanStd) -> list[Any]:
    return [np.asarray(rms.mean).tolist(), np.asarray(rms.var).tolist(), float(rms.count)]


def _statistics(numbers: list[Any]) -> RunningMeanStd:
    rms = RunningMeanStd()
    mean, var, rms.count = numbers
    rms.mean, rms.var = np.array(mean), np.array(var)
    return rms
