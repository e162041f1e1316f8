"""Range checks that the trainers share."""

from __future__ import annotations

import math
from typing import Any


def require_number(
    name: str, value: Any, low: float = 0.0, high: float = math.inf, low_allowed: bool = True, optional: bool = False
) -> None:
    """Raise a ValueError unless ``value`` is a finite number in [low, high], or in (low, high].

    Schedules (callables) pass, and so does None where it is ``optional``.
    """
    if callable(value) or (optional and value is None):
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if number and low <= value <= high and (low_allowed or value > low):
        return
    at_least = f"at least {low:g}" if low_allowed else f"greater than {low:g}"
    at_most = "" if high == math.inf else f" and at most {high:g}"
    raise ValueError(f"{name} must be a number {at_least}{at_most}, got {value!r}")
