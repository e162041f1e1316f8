"""Importance-weighted actor-learners (IMPALA): workers play, one learner learns."""

from .algorithm import IMPALA

__all__ = ["IMPALA"]
