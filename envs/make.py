"""``make_vec_env``: any Gymnasium environment, and every Atari game at native speed, as an SB3 ``VecEnv``."""

from __future__ import annotations

import difflib
import importlib

import gymnasium
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common import env_util
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage

from .atari_vec import AtariVecEnv
from .frame_skip import FrameSkip, frames_per_step

ATARI_ENTRY_POINT = "ale_py.env:AtariEnv"


def make_vec_env(id: str, n_envs: int = 1, frame_skip: int | None = None, seed: int | None = None) -> VecEnv:
    spec = find_spec(id)
    if spec.entry_point == ATARI_ENTRY_POINT:
        return AtariVecEnv(spec.kwargs["game"], n_envs, 4 if frame_skip is None else frame_skip, seed)
    frames = frames_per_step(frame_skip or 0)

    def make_env() -> gymnasium.Env:
        env = gymnasium.make(spec)
        return FrameSkip(env, frames) if frames > 1 else env

    env = env_util.make_vec_env(make_env, n_envs, seed)
    if is_image_space(env.observation_space) and not is_image_space_channels_first(env.observation_space):
        env = VecTransposeImage(env)
    return env


def find_spec(id: str) -> EnvSpec:
    """What Gymnasium has registered under ``id``, which may have the form ``module:id``."""
    module, _, name = id.rpartition(":")
    if module:
        importlib.import_module(module)
    if name not in gymnasium.registry:
        nearest = difflib.get_close_matches(name, gymnasium.registry, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown environment '{id}': did you mean '{nearest}'?")
    return gymnasium.registry[name]
