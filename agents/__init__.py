"""Agents with relational memory: cores, policy and trainers."""

from .a3c import A3C
from .cores import MemoryCore, StackedCore, check_core, make_core, register_core, registered_cores
from .heads import SequenceModel
from .interaction import Diverged
from .load import load
from .policy import MemoryActorCriticPolicy
from .ppo import MemoryPPO
from .supervised import SupervisedTrainer

__all__ = [
    "A3C",
    "Diverged",
    "MemoryActorCriticPolicy",
    "MemoryCore",
    "MemoryPPO",
    "SequenceModel",
    "StackedCore",
    "SupervisedTrainer",
    "check_core",
    "load",
    "make_core",
    "register_core",
    "registered_cores",
]
