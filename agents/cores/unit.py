"""Vectors of length one, with gradients that stay finite at zero."""

from __future__ import annotations

from torch import Tensor


def unit_length(x: Tensor) -> Tensor:
    """x / |x| along the last dimension, and near zero a little less: an observation of zeros has a key of zeros, where
    the gradient of an exact normalisation would be infinite."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
