"""Memory cores: one file per core, one contract (``core``), one registry."""

from .blocks import ResidualCore, StackedCore
from .check import check_core
from .core import MemoryCore, State
from .ffm import FFMCore
from .gru import GRUCore
from .identity import IdentityCore
from .lru import LRUCore
from .lstm import LSTMCore
from .lstm_stm import lstm_stm
from .mamba import MambaCore
from .mamba2 import Mamba2Core
from .min_rnn import MinGRUCore, MinLSTMCore
from .registry import core_options, make_core, register_core, registered_cores
from .rg_lru import RGLRUCore
from .rmc import RMCCore
from .rnn import RNNCore
from .slstm import SLSTMCore
from .stm import STMCore

__all__ = [
    "FFMCore",
    "GRUCore",
    "IdentityCore",
    "LRUCore",
    "LSTMCore",
    "Mamba2Core",
    "MambaCore",
    "MemoryCore",
    "MinGRUCore",
    "MinLSTMCore",
    "RGLRUCore",
    "RMCCore",
    "RNNCore",
    "ResidualCore",
    "SLSTMCore",
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
