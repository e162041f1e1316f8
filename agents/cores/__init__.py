"""Memory cores: one file per core, one contract (``base``), one registry."""

from .base import MemoryCore
from .check import check_core
from .gru import GRUCore
from .identity import IdentityCore
from .lstm import LSTMCore
from .registry import core_options, make_core, register_core, registered_cores
from .rmc import RMCCore
from .stacked import StackedCore
from .stm import STMCore

__all__ = [
    "GRUCore",
    "IdentityCore",
    "LSTMCore",
    "MemoryCore",
    "RMCCore",
    "STMCore",
    "StackedCore",
    "check_core",
    "core_options",
    "make_core",
    "register_core",
    "registered_cores",
]
