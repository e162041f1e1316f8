"""``make_vec_env``: any Gymnasium environment, and every Atari game at native speed, as an SB3 ``VecEnv``."""

from __future__ import annotations

import importlib
from numbers import Integral
from typing import Any

import ale_py
import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from stable_baselines3.common import env_util
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage

from ..common.checks import require_at_least
from ..common.options import Count, Natural
from .atari_vec import AtariVecEnv
from .checks import nearest
from .frame_skip import FrameSkip, frames_per_step

ATARI_ENTRY_POINT = "relmem.envs.atari:make_atari_env"
"""Ids registered with this entry point, ``relmem/PongSkip4-v0`` for one, fix the options in their ``kwargs``."""

gymnasium.register_envs(ale_py)
ALE_GAMES: dict[str, str] = {
    id: spec.kwargs["game"] for id, spec in gymnasium.registry.items() if spec.entry_point == "ale_py.env:AtariEnv"
}
"""The game of every id that ALE registers, such as ``ALE/Pong-v5`` or ``PongNoFrameskip-v4``."""


def make_vec_env(
    id: str,
    n_envs: Count = 1,
    frame_skip: Natural | None = None,
    seed: Natural | None = None,
    image_size: Count | tuple[Count, Count] | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> VecEnv:
    """Make ``n_envs`` copies of an environment that report episode statistics and have channel-first images.

    All ids of one Atari game mean the same: its ROM with the frame skip given here and no sticky actions, whatever
    the id stands for elsewhere (see ``AtariVecEnv``). Other environments run one after the other in this process.
    ``get_attr("frames_per_step")`` of the result tells how many frames an action lasts.

    :param id: a Gymnasium id, or ``"package:id"`` where importing the package registers it
    :param n_envs: number of environments
    :param frame_skip: frames per action, 0 and 1 for no skipping; None: what the id says, else 4 for Atari games and
        0 elsewhere
    :param seed: environment i is seeded with ``seed + i`` at the first reset; None: at random
    :param image_size: side of an Atari game's square images, or (height, width); None: 84
    :param env_kwargs: further arguments of an environment that is no Atari game
    :raises ValueError: if the id is unknown (naming the nearest one), a package or ROM that it needs is missing, or an
        argument is out of range
    """
    require_at_least(1, n_envs=n_envs)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0):
        raise ValueError(f"seed must be an integer of at least 0 or None, got {seed!r}")
    spec = find_spec(id)
    if spec.id in ALE_GAMES or spec.entry_point == ATARI_ENTRY_POINT:
        fixed = {"game": ALE_GAMES[spec.id]} if spec.id in ALE_GAMES else spec.kwargs
        given = {
            name: value for name, value in (("frame_skip", frame_skip), ("image_size", image_size)) if value is not None
        }
        for name in given.keys() & fixed.keys():
            if given[name] != fixed[name]:
                raise ValueError(f"'{id}' has {name} {fixed[name]}, not {given[name]}: use an id that leaves it open")
        if env_kwargs:
            raise ValueError(f"'{id}' is an Atari game, which takes no env_kwargs")
        return AtariVecEnv(n_envs=n_envs, seed=seed, **fixed | given)
    if image_size is not None:
        raise ValueError(f"image_size is for Atari games, and '{id}' is none")
    frames = frames_per_step(0 if frame_skip is None else frame_skip)

    def make_env() -> gymnasium.Env:
        return FrameSkip(gymnasium.make(spec, **_render_options(spec) | (env_kwargs or {})), frames)

    try:
        env = env_util.make_vec_env(make_env, n_envs, seed)
    except (ImportError, TypeError, gymnasium.error.Error) as error:
        if isinstance(error, TypeError) and "argument" not in str(error):
            raise
        raise ValueError(f"cannot make '{id}': {' '.join(str(error).split())}") from error
    space = env.observation_space
    if isinstance(space, spaces.Tuple):
        raise ValueError(f"'{id}' has observations of {space}, which SB3 policies cannot read")
    if isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space):
        env = VecTransposeImage(env)
    return env


def find_spec(id: str) -> EnvSpec:
    """What Gymnasium has registered under an id, which may have the form ``package:id``.

    :raises ValueError: if the id is unknown or the package cannot be imported
    """
    package, _, name = id.rpartition(":")
    if package:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(f"'{id}' needs a package that cannot be imported: {error}") from error
    if name not in gymnasium.registry:
        # Without versions, all of which look alike; of those of one name the last is the newest.
        by_name = {known.rpartition("-v")[0] or known: known for known in gymnasium.registry}
        close = nearest(name.rpartition("-v")[0] or name, by_name, cutoff=0.6)
        hint = f"did you mean '{by_name[close]}'? An" if close else "an"
        raise ValueError(f"unknown environment '{id}': {hint} id of another package is written 'package:id'")
    return gymnasium.registry[name]


def _render_options(spec: EnvSpec) -> dict[str, Any]:
    """Rendering to arrays where the environment can, as SB3's video recorder expects it."""
    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    metadata = getattr(creator, "metadata", None)  # of a wrapper's class, a property
    modes = metadata.get("render_modes", []) if isinstance(metadata, dict) else []
    return {"render_mode": "rgb_array"} if "rgb_array" in modes else {}
