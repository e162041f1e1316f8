"""Checks of a task's options: each failure is one sentence that names what would be valid."""

from __future__ import annotations


def require_at_least(low: int, **values: object) -> None:
    """Raise a ValueError naming the first of the values that is no integer of at least ``low``."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}")


def require_at_most(high: int, **values: int) -> None:
    """Raise a ValueError naming the first of the values that is above ``high``."""
    for name, value in values.items():
        if value > high:
            raise ValueError(f"{name} must be at most {high}, got {value}")
