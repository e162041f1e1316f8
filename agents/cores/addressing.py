"""Addressing by content, of memories with cells."""

from __future__ import annotations

from torch import Tensor

from .unit import unit_length


def content_weights(memory: Tensor, key: Tensor, strength: Tensor) -> Tensor:
    """softmax over cells of strength times the cosine of a key and a cell: memory [B, N, W], keys of heads [B, R, W],
    strength [B, R] -> weights [B, R, N], which sum to 1 over the cells."""
    cosine = unit_length(key) @ unit_length(memory).mT  # [B, R, N]
    return (strength.unsqueeze(2) * cosine).softmax(dim=2)
