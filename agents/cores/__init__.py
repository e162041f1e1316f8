"""Memory cores: one file per core, one contract (``core``), one registry."""

from .blocks import ResidualCore, StackedCore
from .check import check_core
from .core import MemoryCore, State
from .delta_net import DeltaNetCore
from .dnc import DNCCore
from .fast_weights import FastWeightsCore, WeiNetCore
from .ffm import FFMCore
from .gated_delta_net import GatedDeltaNetCore
from .gru import GRUCore
from .gtrxl import GTrXLCore
from .identity import IdentityCore
from .linear_attention import CorrelationMatrixCore, GLACore, LinearAttentionCore, RetNetCore
from .lm2 import LM2Core
from .lru import LRUCore
from .lstm import LSTMCore
from .lstm_stm import lstm_stm
from .mamba import MambaCore
from .mamba2 import Mamba2Core
from .memory_layer import MemoryLayerCore
from .min_rnn import MinGRUCore, MinLSTMCore
from .mlstm import MLSTMCore
from .ntm import NTMCore
from .registry import core_options, make_core, register_core, registered_cores
from .rg_lru import RGLRUCore
from .rmc import RMCCore
from .rmt import ARMTCore, RMTCore
from .rnn import RNNCore
from .rwkv7 import RWKV7Core
from .shm import SHMCore
from .slstm import SLSTMCore
from .stm import STMCore
from .titans import TitansCore
from .tpr import TPRCore

__all__ = [
    "ARMTCore",
    "CorrelationMatrixCore",
    "DNCCore",
    "DeltaNetCore",
    "FFMCore",
    "FastWeightsCore",
    "GLACore",
    "GRUCore",
    "GTrXLCore",
    "GatedDeltaNetCore",
    "IdentityCore",
    "LM2Core",
    "LRUCore",
    "LSTMCore",
    "LinearAttentionCore",
    "MLSTMCore",
    "Mamba2Core",
    "MambaCore",
    "MemoryCore",
    "MemoryLayerCore",
    "MinGRUCore",
    "MinLSTMCore",
    "NTMCore",
    "RGLRUCore",
    "RMCCore",
    "RMTCore",
    "RNNCore",
    "RWKV7Core",
    "ResidualCore",
    "RetNetCore",
    "SHMCore",
    "SLSTMCore",
    "STMCore",
    "StackedCore",
    "State",
    "TPRCore",
    "TitansCore",
    "WeiNetCore",
    "check_core",
    "core_options",
    "lstm_stm",
    "make_core",
    "register_core",
    "registered_cores",
]
