"""Environments: every Atari game at any frame skip, and small tests of memory.

Importing the package registers its ids with Gymnasium; ``gymnasium.make("relmem.envs:relmem/PongSkip16-v0")`` imports
it by itself.
"""

import gymnasium

from .atari import make_atari_env
from .atari_vec import AtariVecEnv
from .flicker import Flicker
from .frame_skip import FrameSkip
from .make import ATARI_ENTRY_POINT, make_vec_env
from .memory import MaskVelocities, RepeatFirst

__all__ = ["AtariVecEnv", "Flicker", "FrameSkip", "MaskVelocities", "RepeatFirst", "make_atari_env", "make_vec_env"]

for _frames in (0, 4, 16, 32):
    gymnasium.register(
        id=f"relmem/PongSkip{_frames}-v0",
        entry_point=ATARI_ENTRY_POINT,
        kwargs={"game": "pong", "frame_skip": _frames},
    )
gymnasium.register(
    id="relmem/MaskedCartPole-v0",
    entry_point="gymnasium.envs.classic_control.cartpole:CartPoleEnv",
    additional_wrappers=(MaskVelocities.wrapper_spec(),),
    max_episode_steps=500,
    reward_threshold=475.0,
)
gymnasium.register(id="relmem/RepeatFirst-v0", entry_point="relmem.envs.memory:RepeatFirst")
