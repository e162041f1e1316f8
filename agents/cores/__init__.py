"""Memory cores: one file per core, one contract (``core``), one registry."""

from .blocks import ResidualCore, StackedCore
from .check import check_core
from .core import MemoryCore, State
from .fast_weights import FastWeightsCore, WeiNetCore
from .gru import GRUCore
from .identity import IdentityCore
from .linear_attention import CorrelationMatrixCore, GLACore, LinearAttentionCore, RetNetCore
from .lstm import LSTMCore
from .lstm_stm import lstm_stm
from .mlstm import MLSTMCore
from .registry import core_options, make_core, register_core, registered_cores
from .rmc import RMCCore
from .shm import SHMCore
from .stm import STMCore

__all__ = [
    "CorrelationMatrixCore",
    "FastWeightsCore",
    "GLACore",
    "GRUCore",
    "IdentityCore",
    "LSTMCore",
    "LinearAttentionCore",
    "MLSTMCore",
    "MemoryCore",
    "RMCCore",
    "ResidualCore",
    "RetNetCore",
    "SHMCore",
    "STMCore",
    "StackedCore",
    "State",
    "WeiNetCore",
    "check_core",
    "core_options",
    "lstm_stm",
    "make_core",
    "register_core",
    "registered_cores",
]
