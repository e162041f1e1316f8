"""Weights that are to be loaded must be those of the same network: if not, the first difference is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def require_same_tensors(network: nn.Module, weights: Mapping[str, Any]) -> None:
    """Compare weights with those of a network, name by name.

    :param weights: another network's ``state_dict``
    :raises ValueError: naming the first tensor that one of them lacks, or has in another shape
    """
    own = network.state_dict()
    for name, tensor in own.items():
        if name not in weights:
            raise ValueError(f"these weights are of another configuration: they lack '{name}' {list(tensor.shape)}")
        if tensor.shape != weights[name].shape:
            raise ValueError(
                f"these weights are of another configuration: '{name}' is {list(weights[name].shape)} in them, and "
                f"{list(tensor.shape)} here"
            )
    for name, tensor in weights.items():
        if name not in own:
            raise ValueError(f"these weights are of another configuration: '{name}' {list(tensor.shape)} is not here")
