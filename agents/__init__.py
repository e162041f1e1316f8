"""Agents with relational memory: cores, policy and trainers."""

from .a3c import A3C
from .cores import MemoryCore, StackedCore, make_core, register_core, registered_cores
from .load import load
from .policy import MemoryActorCriticPolicy
from .ppo import MemoryPPO

__all__ = [
    "A3C",
    "MemoryActorCriticPolicy",
    "MemoryCore",
    "MemoryPPO",
    "StackedCore",
    "load",
    "make_core",
    "register_core",
    "registered_cores",
]
