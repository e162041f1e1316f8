"""Numbers that change over a training."""

from __future__ import annotations

from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from ..common.options import LINEAR


def as_schedule(value: float | str | Schedule) -> Schedule:
    """A function of the remaining progress, which goes from 1 to 0.

    :param value: such a function, a number (NumPy's too), or text such as ``lin_3e-4``: from that number to zero
    """
    if isinstance(value, str):
        return LinearSchedule(float(value.removeprefix(LINEAR)), 0.0, 1.0)
    return FloatSchedule(value if callable(value) else float(value))
