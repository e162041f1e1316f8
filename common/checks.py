"""Checks of arguments: each failure is one sentence that names what would be valid."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

LISTED = 20  # names in one message


def require_at_least(low: int, why: str = "", /, **values: Any) -> None:
    """Raise a ValueError naming the first of the values that is no integer of at least ``low``.

    :param why: where the limit comes from, where that is not plain
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
            raise ValueError(f"{name} must be an integer of at least {low}{why and f' ({why})'}, got {value!r}")


def require_at_most(high: int, why: str = "", /, **values: int) -> None:
    """Raise a ValueError naming the first of the values that is above ``high``."""
    for name, value in values.items():
        if value > high:
            raise ValueError(f"{name} must be at most {high}{why and f' ({why})'}, got {value}")


def require_number(
    name: str,
    value: Any,
    high: float = math.inf,
    zero_allowed: bool = True,
    optional: bool = False,
    schedule: bool = False,
) -> None:
    """Raise a ValueError unless ``value`` is a finite number in [0, high].

    :param zero_allowed: 0 passes too
    :param optional: None passes too
    :param schedule: so does a callable, which gives numbers over the training
    """
    if (schedule and callable(value)) or (optional and value is None):
        return
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if number and 0 <= value <= high and (zero_allowed or value > 0):
        return
    at_least = "at least 0" if zero_allowed else "greater than 0"
    at_most = "" if high == math.inf else f" and at most {high:g}"
    raise ValueError(f"{name} must be a number {at_least}{at_most}, got {value!r}")


def require_choice(kind: str, name: Any, valid: Iterable[str]) -> None:
    """Raise a ValueError naming the nearest valid name unless ``name`` is one of them."""
    valid = tuple(valid)
    if name not in valid:
        raise ValueError(unknown(kind, name, valid))


def unknown(kind: str, name: Any, valid: Iterable[str]) -> str:
    """One sentence that says what is unknown and which valid name is nearest."""
    valid = list(valid)
    nearest = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"choose from {_listed(valid)}"
    return f"unknown {kind} '{name}': {hint}"


def _listed(names: list[str]) -> str:
    """All of a short list, the first of a long one."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "") or "none"
