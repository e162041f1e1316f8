"""Memory cores: one file per core, one contract (``core``), one registry."""

from .blocks import ResidualCore, StackedCore
from .check import check_core
from .core import MemoryCore, State
from .gru import GRUCore
from .identity import IdentityCore
from .lstm import LSTMCore
from .lstm_stm import lstm_stm
from .min_rnn import MinGRUCore, MinLSTMCore
from .registry import core_options, make_core, register_core, registered_cores
from .rmc import RMCCore
from .rnn import RNNCore
from .slstm import SLSTMCore
from .stm import STMCore

__all__ = [
    "GRUCore",
    "IdentityCore",
    "LSTMCore",
    "MemoryCore",
    "MinGRUCore",
    "MinLSTMCore",
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
