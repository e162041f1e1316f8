"""Checks that numbers are finite: what environments give, where it enters, and what an update computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

# In float32, as all that is learned is: its largest number, and the largest of which a sum can still be squared, as the
# value loss squares returns.
LARGEST, LARGEST_LEARNED = np.finfo(np.float32).max, np.float32(1e15)


class Diverged(FloatingPointError):
    """A training whose loss, gradient or weights are not finite any more: its weights are of no use."""


def require_observations(
    obs: Any, environments: Sequence[int] | None = None, kind: str = "observation", largest: np.float32 = LARGEST
) -> None:
    """Refuse observations [N, ...], or a dictionary of them, of numbers that are not finite or too large.

    :param environments: number of the environment of each row; None: the rows are of all environments, in order
    :raises FloatingPointError: naming the environment and what it gave
    """
    for key, values in obs.items() if isinstance(obs, dict) else [("", obs)]:
        if values.dtype.kind == "f":  # bytes and other integers are finite
            _require_numbers(f"{kind} '{key}'" if key else kind, values, largest, environments)


def require_rewards(rewards: np.ndarray, largest: np.float32 = LARGEST) -> None:
    """Refuse rewards [N] that are not finite or too large.

    :raises FloatingPointError: naming the environment and what it gave
    """
    _require_numbers("reward", rewards, largest)


def _require_numbers(
    name: str, values: np.ndarray, largest: np.float32, environments: Sequence[int] | None = None
) -> None:
    fine = np.abs(values) <= largest  # not so for NaN
    if not fine.all():
        row = int(fine.reshape(len(values), -1).all(axis=1).argmin())
        given = np.array2string(values[row], threshold=8, edgeitems=2).replace("\n", "")
        raise FloatingPointError(
            f"environment {row if environments is None else environments[row]} gave {'an' if name[0] == 'o' else 'a'} "
            f"{name} that is {'too large' if np.isfinite(values[row]).all() else 'not finite'}: {given}"
        )


def require_finite_loss(loss: Tensor, gradient_norm: Tensor, **parts: Tensor) -> None:
    """Raise ``Diverged`` naming the parts of the loss unless it and its gradient are finite."""
    if not (loss.isfinite() & gradient_norm.isfinite()):
        values = ", ".join(f"{name} {part.item()}" for name, part in parts.items())
        raise Diverged(
            f"the loss is {loss.item()} ({values}), the norm of its gradient {gradient_norm.item()}: "
            "a smaller learning_rate or max_grad_norm may help"
        )


def require_finite_weights(network: nn.Module) -> None:
    """Raise ``Diverged`` unless all weights are finite."""
    if not all(parameter.isfinite().all() for parameter in network.parameters()):
        raise Diverged("the weights are not finite any more: a smaller learning_rate or max_grad_norm may help")
