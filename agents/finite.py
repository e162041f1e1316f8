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


def require_numbers(
    kind: str, given: Any, largest: np.float32 = LARGEST, environments: Sequence[int] | None = None
) -> None:
    """Refuse what environments gave, [N, ...] or a dictionary of such, if numbers are not finite or too large.

    :param kind: what it is: observation, reward or last observation
    :param environments: number of the environment of each row; None: the rows are of all environments, in order
    :raises FloatingPointError: naming the environment and what it gave
    """
    for key, values in given.items() if isinstance(given, dict) else [("", given)]:
        if values.dtype.kind != "f":  # bytes and other integers are finite
            continue
        fine = (np.abs(values) <= largest).reshape(len(values), -1).all(axis=1)  # [N], not so where one is NaN
        if not fine.all():
            row = int(fine.argmin())
            number = row if environments is None else environments[row]
            fault = "too large" if np.isfinite(values[row]).all() else "not finite"
            text = np.array2string(values[row], threshold=8, edgeitems=2).replace("\n", "")
            part = f"{kind} '{key}'" if key else kind
            raise FloatingPointError(
                f"environment {number} gave {'an' if kind[0] == 'o' else 'a'} {part} that is {fault}: {text}"
            )


def is_finite(*numbers: Tensor) -> bool:
    """Whether all of these are finite, each of one element."""
    return all(bool(number.isfinite()) for number in numbers)


def has_finite_weights(network: nn.Module) -> bool:
    """Whether all weights are finite."""
    return all(bool(parameter.isfinite().all()) for parameter in network.parameters())


def require_finite_weights(network: nn.Module) -> None:
    """Raise ``Diverged`` unless all weights are finite."""
    if not has_finite_weights(network):
        raise Diverged("the weights are not finite any more: a smaller learning_rate or max_grad_norm may help")
