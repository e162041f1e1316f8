"""Agents with relational memory: cores, policy and trainers."""

import importlib
from typing import Any

from .a3c import A3C
from .cores import MemoryCore, StackedCore, check_core, make_core, register_core, registered_cores
from .evaluate import Evaluation, evaluate
from .finite import Diverged
from .load import load
from .policy import MemoryActorCriticPolicy
from .ppo import MemoryPPO

__all__ = [
    "A3C",
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
    """Two names of ``relmem.supervised``, which imports this package and so cannot be imported along with it."""
    if name not in ("SequenceModel", "SupervisedTrainer"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module("..supervised", __name__)
    except ImportError:  # where it is still a part of this package
        module = importlib.import_module(".heads" if name == "SequenceModel" else ".supervised", __name__)
    return getattr(module, name)
