"""Agents with relational memory: cores, policy and trainers."""

from .cores import MemoryCore, make_core, register_core, registered_cores
from .policy import MemoryActorCriticPolicy

__all__ = ["MemoryActorCriticPolicy", "MemoryCore", "make_core", "register_core", "registered_cores"]
