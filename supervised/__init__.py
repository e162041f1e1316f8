"""Supervised learning: memory cores, and a baseline that is none, trained on tasks."""

from .attentional_lstm import AttentionalLSTM
from .memories import make_memory, memories, memory_options
from .model import SequenceModel
from .trainer import SupervisedTrainer

__all__ = [
    "AttentionalLSTM",
    "SequenceModel",
    "SupervisedTrainer",
    "make_memory",
    "memories",
    "memory_options",
]
