"""Environments: Atari games at any frame skip, and small tests of memory."""

import ale_py
import gymnasium

from .atari_vec import AtariVecEnv
from .frame_skip import FrameSkip
from .make import make_vec_env
from .memory import RepeatFirst

__all__ = ["AtariVecEnv", "FrameSkip", "RepeatFirst", "make_vec_env"]

gymnasium.register_envs(ale_py)
gymnasium.register(id="relmem/MaskedCartPole-v0", entry_point="relmem.envs.memory:make_masked_cartpole")
gymnasium.register(id="relmem/RepeatFirst-v0", entry_point="relmem.envs.memory:RepeatFirst")
