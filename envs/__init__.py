"""Environments: every Atari game at any frame skip, and small tests of memory.

Importing the package registers its ids with Gymnasium; ``gymnasium.make("relmem.envs:relmem/PongSkip16-v0")`` imports
it by itself.
"""

import gymnasium

from .allowed import RepeatFirstAllowed
from .atari import make_atari_env
from .atari_vec import AtariVecEnv
from .flicker import Flicker
from .frame_skip import FrameSkip
from .last import LastActionReward
from .make import ATARI_ENTRY_POINT, make_vec_env
from .memory import HideVelocities, MemoryChain, RepeatFirst, TMaze
from .suites import registered_envs

__all__ = [
    "AtariVecEnv",
    "Flicker",
    "FrameSkip",
    "HideVelocities",
    "LastActionReward",
    "MemoryChain",
    "RepeatFirst",
    "RepeatFirstAllowed",
    "TMaze",
    "make_atari_env",
    "make_vec_env",
    "registered_envs",
]

for _frames in (0, 4, 16, 32):
    gymnasium.register(
        id=f"relmem/PongSkip{_frames}-v0",
        entry_point=ATARI_ENTRY_POINT,
        kwargs={"game": "pong", "frame_skip": _frames},
    )
gymnasium.register(
    id="relmem/MaskedCartPole-v0",
    entry_point="gymnasium.envs.classic_control.cartpole:CartPoleEnv",
    additional_wrappers=(HideVelocities.wrapper_spec(velocities=[1, 3], drop=True),),
    max_episode_steps=500,
    reward_threshold=475.0,
)
for _name in ("RepeatFirst", "TMaze", "MemoryChain"):
    gymnasium.register(id=f"relmem/{_name}-v0", entry_point=f"relmem.envs.memory:{_name}")
gymnasium.register(id="relmem/RepeatFirstAllowed-v0", entry_point="relmem.envs.allowed:RepeatFirstAllowed")
for _name, _version, _velocities in (("CartPole", 1, [1, 3]), ("Pendulum", 1, [2])):
    _spec = gymnasium.spec(f"{_name}-v{_version}")
    if (_id := f"{_name}NoVel-v{_version}") not in gymnasium.registry:  # rl_zoo3, where it was imported first, has it
        gymnasium.register(
            id=_id,
            entry_point=_spec.entry_point,
            additional_wrappers=(HideVelocities.wrapper_spec(velocities=_velocities),),
            max_episode_steps=_spec.max_episode_steps,
            reward_threshold=_spec.reward_threshold,
        )
