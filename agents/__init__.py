"""Agents with relational memory: cores, policy and trainers."""

from .cores import MemoryCore, make_core, register_core, registered_cores

__all__ = ["MemoryCore", "make_core", "register_core", "registered_cores"]
