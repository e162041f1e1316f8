"""Memory cores: one file per core, one contract (``core``), one registry."""

from .blocks import ResidualCore, StackedCore
from .check import check_core
from .core import MemoryCore, State
from .gru import GRUCore
from .gtrxl import GTrXLCore
from .identity import IdentityCore
from .lm2 import LM2Core
from .lstm import LSTMCore
from .lstm_stm import lstm_stm
from .memory_layer import MemoryLayerCore
from .registry import core_options, make_core, register_core, registered_cores
from .rmc import RMCCore
from .rmt import ARMTCore, RMTCore
from .stm import STMCore

__all__ = [
    "ARMTCore",
    "GRUCore",
    "GTrXLCore",
    "IdentityCore",
    "LM2Core",
    "LSTMCore",
    "MemoryCore",
    "MemoryLayerCore",
    "RMCCore",
    "RMTCore",
    "ResidualCore",
    "STMCore",
    "StackedCore",
    "State",
    "check_core",
    "core_options",
    "lstm_stm",
    "make_core",
    "register_core",
    "registered_cores",
]
