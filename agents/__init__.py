"""Agents with relational memory: cores, policy and trainers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .a3c import A3C
from .agent import Agent
from .cores import MemoryCore, StackedCore, check_core, make_core, register_core, registered_cores
from .evaluate import Evaluation, evaluate
from .finite import Diverged
from .impala import IMPALA
from .load import Algorithm, load
from .policy import MemoryActorCriticPolicy
from .ppo import MemoryPPO

if TYPE_CHECKING:
    from ..supervised import SequenceModel, SupervisedTrainer

__all__ = [
    "A3C",
    "IMPALA",
    "Agent",
    "Algorithm",
    "Diverged",
    "Evaluation",
    "MemoryActorCriticPolicy",
    "MemoryCore",
    "MemoryPPO",
    "SequenceModel",
    "StackedCore",
    "SupervisedTrainer",
    "check_core",
    "evaluate",
    "load",
    "make_core",
    "register_core",
    "registered_cores",
]


def __getattr__(name: str) -> Any:
    """The supervised classes under their old names: looked up late, since ``supervised`` imports the cores."""
    if name not in ("SequenceModel", "SupervisedTrainer"):
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from .. import supervised

    return getattr(supervised, name)
