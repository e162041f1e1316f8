"""Agents with relational memory: cores, policy and trainers."""

from .cores import MemoryCore, make_core, register_core, registered_cores
from .policy import MemoryActorCriticPolicy
from .ppo import MemoryPPO

__all__ = ["MemoryActorCriticPolicy", "MemoryCore", "MemoryPPO", "make_core", "register_core", "registered_cores"]
