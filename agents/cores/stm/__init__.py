"""The SAM-based Two-memory Model: its cell, its variants, and its way through a sequence."""

from .core import STMCore as STMCore
