"""Asynchronous advantage actor-critic (A3C): worker processes that train one shared policy."""

from .algorithm import A3C

__all__ = ["A3C"]
