"""Stable Hadamard Memory (Le et al. 2024)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .registry import register_core
from .squash import squash


class SHMState(NamedTuple):
    memory: Tensor  # [B, m, m]


@register_core("shm")
class SHMCore(MemoryCore):
    """Stable Hadamard Memory (Le et al. 2024, "Stable Hadamard Memory: Revitalizing Memory-Augmented Agents for
    Reinforcement Learning"):

        M_t = M_{t-1} ∘ C_t + η_t v_t k_tᵀ,   C_t = 1 + tanh(θ ⊗ W_c x_t),   y_t = M_t q_t

    with rate η_t = σ(w_η x_t), value v_t = W_v x_t, and key and query relu(W x_t), scaled to sum to 1. All read the
    input through a layer normalisation. Each entry of the memory is weakened or strengthened by its own factor from 0
    to 2.

    In the paper, θ is drawn at every step from 128 learned rows, on which its bound on products of many factors rests.
    The released code always takes the first row, and so does this core, whose steps have no randomness: where inputs
    resemble each other for long, an entry of the memory can vanish or explode.

    A single input feature is all zero after the normalisation: give it at least two.

    Good at long credit assignment and at keeping or deleting single entries. Bad at long runs of similar inputs, and
    needs as much memory for gradients as there are steps times m².

    :param memory_size: size m of keys, values and the memory; the natural output width
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(self, input_size: Count, output_size: Count | None = None, memory_size: Count = 64) -> None:
        require_options(SHMCore, locals())
        super().__init__(
            input_size,
            memory_size if output_size is None else output_size,
            SHMState,
            ((memory_size, memory_size),),
        )
        self.norm = nn.LayerNorm(input_size)
        self.query = nn.Linear(input_size, memory_size, bias=False)
        self.key = nn.Linear(input_size, memory_size, bias=False)
        self.value = nn.Linear(input_size, memory_size, bias=False)
        self.calibration = nn.Linear(input_size, memory_size, bias=False)
        self.rate = nn.Linear(input_size, 1, bias=False)
        limit = math.sqrt(6 / (128 + memory_size))  # as one of the 128 rows starts
        self.theta = nn.Parameter(torch.empty(memory_size).uniform_(-limit, limit))
        self.out = output_map(memory_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: SHMState) -> tuple[Tensor, SHMState]:
        x = self.norm(x)
        query, key = to_sum_one(self.query(x).relu()), to_sum_one(self.key(x).relu())  # [B, m]
        value = self.rate(x).sigmoid() * self.value(x)
        kept = 1 + squash(self.theta.unsqueeze(1) * self.calibration(x).unsqueeze(1))  # [B, m, m]
        memory = state.memory * kept + value.unsqueeze(2) * key.unsqueeze(1)
        return self.out((memory @ query.unsqueeze(2)).squeeze(2)), SHMState(memory)

    @full_precision
    def gates(self, x: Tensor, state: SHMState) -> dict[str, Tensor]:
        return {"write_gate": self.rate(self.norm(x)).sigmoid()}


def to_sum_one(features: Tensor) -> Tensor:
    return features / (1e-5 + features.sum(-1, keepdim=True))
