"""Memory cores: one file per core, one contract (``core``), one registry."""

from .blocks import ResidualCore, StackedCore
from .check import check_core
from .core import MemoryCore, State
from .delta_net import DeltaNetCore
from .dnc import DNCCore
from .gated_delta_net import GatedDeltaNetCore
from .gru import GRUCore
from .identity import IdentityCore
from .lstm import LSTMCore
from .lstm_stm import lstm_stm
from .ntm import NTMCore
from .registry import core_options, make_core, register_core, registered_cores
from .rmc import RMCCore
from .rwkv7 import RWKV7Core
from .stm import STMCore
from .titans import TitansCore
from .tpr import TPRCore

__all__ = [
    "DNCCore",
    "DeltaNetCore",
    "GRUCore",
    "GatedDeltaNetCore",
    "IdentityCore",
    "LSTMCore",
    "MemoryCore",
    "NTMCore",
    "RMCCore",
    "RWKV7Core",
    "ResidualCore",
    "STMCore",
    "StackedCore",
    "State",
    "TPRCore",
    "TitansCore",
    "check_core",
    "core_options",
    "lstm_stm",
    "make_core",
    "register_core",
    "registered_cores",
]
