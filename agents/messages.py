"""What travels between workers and the main process."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple, cast

import cloudpickle
import numpy as np

from .collector import Step

KEPT_INFO = ("episode", "is_success", "TimeLimit.truncated")

PlayedStep = tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]
"""Rewards [B], dones [B] and infos of one step, as the environments gave them; of infos only ``KEPT_INFO``, and only
where an episode ended."""


class Report(NamedTuple):
    """What a worker tells the main process about one segment."""

    steps: list[PlayedStep]
    statistics: dict[str, float]  # by name in the log
    fault: str = ""  # why nothing was learned from it


def played(step: Step) -> PlayedStep:
    """What is reported of a step."""
    kept = [
        {key: info[key] for key in KEPT_INFO if key in info} if done else {}
        for info, done in zip(step.infos, step.dones, strict=True)
    ]
    return step.rewards, step.dones, kept


def pickled(job: object) -> bytes:
    """What workers are given, by value.

    :raises ValueError: if it cannot be sent
    """
    try:
        return cast(bytes, cloudpickle.dumps(job))
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"the policy, the schedules or the environment factory cannot be sent to workers: {error}"
        ) from error
