"""Memories of matrices that are written by outer products and fade by factors, read by a query: linear attention and
its relatives, which differ in what is forgotten and in how the read-out is scaled.

Each head keeps a matrix S [k, v], writes k vᵀ into it at every step, and reads Sᵀ q, where query q, key k and value v
are affine maps of the input. A sequence is computed in chunks, in which a read-out is attention to the steps before
(``scan.matrix_scan``).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, Positive, require_options
from .core import MemoryCore, full_precision, output_map
from .registry import register_core
from .scan import channel_matrix_scan, matrix_scan, unless_ruined
from .unit import unit_length

EPSILON = 1e-6  # as in the code of linear attention's authors: no division by zero where all features vanish


class MatrixState(NamedTuple):
    memory: Tensor  # [B, H, k, v]


class NormalisedState(NamedTuple):
    memory: Tensor  # [B, H, k, v]
    normaliser: Tensor  # [B, H, k]


class MatrixCore(MemoryCore):
    """What the cores of this family share: query, key and value of each head.

    :param heads: number of memories H
    :param key_size: size k of queries and keys in each head
    :param value_size: size v of values and read-outs in each head; the natural output width is H * v
    :raises ValueError: if a size is not a positive integer
    """

    state_type: ClassVar[Any] = MatrixState

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        heads: Count = 2,
        key_size: Count = 128,
        value_size: Count = 128,
    ) -> None:
        require_options(MatrixCore, locals())
        width = heads * value_size
        leaves = {"memory": (heads, key_size, value_size), "normaliser": (heads, key_size), "stabiliser": (heads,)}
        shapes = tuple(leaves[name] for name in self.state_type._fields)
        super().__init__(input_size, width if output_size is None else output_size, self.state_type, shapes)
        self.heads, self.key_size = heads, key_size
        self.query = nn.Linear(input_size, heads * key_size)
        self.key = nn.Linear(input_size, heads * key_size)
        self.value = nn.Linear(input_size, width)
        self.out = output_map(width, output_size)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [..., F] -> query, key [..., H, k] and value [..., H, v]."""
        query, key, value = (self.per_head(layer(x)) for layer in (self.query, self.key, self.value))
        return query, key, value

    def per_head(self, features: Tensor) -> Tensor:
        """[..., H * n] -> [..., H, n]"""
        return features.unflatten(-1, (self.heads, -1))


def outer(key: Tensor, value: Tensor) -> Tensor:
    """key [..., k], value [..., v] -> key valueᵀ [..., k, v]"""
    return key.unsqueeze(-1) * value.unsqueeze(-2)


def recall(memory: Tensor, query: Tensor) -> Tensor:
    """memory [..., k, v], query [..., k] -> memoryᵀ query [..., v]"""
    return (query.unsqueeze(-2) @ memory).squeeze(-2)


@register_core("linear_attention")
class LinearAttentionCore(MatrixCore):
    """Linear attention (Katharopoulos et al. 2020, "Transformers are RNNs", equations 16 to 20), for each head:

        S_t = S_{t-1} + φ(k_t) v_tᵀ,   z_t = z_{t-1} + φ(k_t),   y_t = S_tᵀ φ(q_t) / (z_tᵀ φ(q_t)),   φ(u) = elu(u) + 1

    Every output is a weighted mean of all values of the episode. Good at summing up what was seen and cheap; bad at
    sharp recall, since nothing is forgotten and the positive features of many keys overlap.
    """

    state_type = NormalisedState

    @full_precision
    def step(self, x: Tensor, state: NormalisedState) -> tuple[Tensor, NormalisedState]:
        query, key, value = self.project(x)
        query, key = positive(query), positive(key)  # [B, H, k]
        memory = state.memory + outer(key, value)  # [B, H, k, v]
        normaliser = state.normaliser + key
        read = recall(memory, query) / ((normaliser * query).sum(-1, keepdim=True) + EPSILON)  # [B, H, v]
        return self.out(read.flatten(-2)), NormalisedState(memory, normaliser)

    @unless_ruined
    def sequence(self, x: Tensor, state: NormalisedState, starts: Tensor, since: int) -> tuple[Tensor, NormalisedState]:
        query, key, value = self.project(x)
        # The normaliser is one more column of the memory, into which every step writes a value of 1.
        joint = torch.cat([state.memory, state.normaliser.unsqueeze(-1)], dim=-1)  # [B, H, k, v + 1]
        kept = x.new_ones(1, 1, 1)
        read, joint = matrix_scan(positive(query), positive(key), F.pad(value, (0, 1), value=1.0), kept, joint, starts)
        read = read[since:, ..., :-1] / (read[since:, ..., -1:] + EPSILON)  # [T, B, H, v]
        return self.out(read.flatten(-2)), NormalisedState(joint[..., :-1], joint[..., -1])


def positive(u: Tensor) -> Tensor:
    """φ(u) = elu(u) + 1"""
    return F.elu(u) + 1


@register_core("correlation_matrix")
class CorrelationMatrixCore(MatrixCore):
    """Correlation matrix memory (Kohonen 1972, "Correlation Matrix Memories"), for each head:

        S_t = S_{t-1} + k_t v_tᵀ,   y_t = S_tᵀ q_t,   keys and queries of unit length

    A query that equals one of n stored keys reads its value, and of each other value as much as the keys correlate:
    exact for keys at right angles, of which there are k. Where keys are values, this is the weight matrix of a
    Hopfield network (Hopfield 1982), and a read-out is one step of it before the threshold, for all units at once.

    Good at exact recall of few pairs; bad at long episodes, since nothing is forgotten and crosstalk grows with the
    root of the number of steps.
    """

    @full_precision
    def step(self, x: Tensor, state: MatrixState) -> tuple[Tensor, MatrixState]:
        query, key, value = self.project(x)
        query, key = unit_length(query), unit_length(key)  # [B, H, k]
        memory = state.memory + outer(key, value)  # [B, H, k, v]
        return self.out(recall(memory, query).flatten(-2)), MatrixState(memory)

    @unless_ruined
    def sequence(self, x: Tensor, state: MatrixState, starts: Tensor, since: int) -> tuple[Tensor, MatrixState]:
        query, key, value = self.project(x)
        query, key = unit_length(query), unit_length(key)
        read, memory = matrix_scan(query, key, value, x.new_ones(1, 1, 1), state.memory, starts)
        return self.out(read[since:].flatten(-2)), MatrixState(memory)


class GatedReadCore(MatrixCore):
    """A core of the family whose read-outs are normalised in each head and gated by the input:
    swish(W_G x + b_G) ∘ LN(o)."""

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        heads: Count = 2,
        key_size: Count = 128,
        value_size: Count = 128,
    ) -> None:
        super().__init__(input_size, output_size, heads, key_size, value_size)
        self.gate = nn.Linear(input_size, heads * value_size)
        self.norm = nn.LayerNorm(value_size)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = super().project(x)
        return query / math.sqrt(self.key_size), key, value

    def output(self, x: Tensor, read: Tensor) -> Tensor:
        """x [..., F], read-outs [..., H, v] -> y [..., O]"""
        return self.out(F.silu(self.gate(x)) * self.norm(read).flatten(-2))


@register_core("retnet")
class RetNetCore(GatedReadCore):
    """Multi-scale retention (Sun et al. 2023, "Retentive Network", equations 5 to 8), for each head h from 0:

        S_t = γ_h R S_{t-1} + k_t v_tᵀ,   o_t = S_tᵀ q_t / √k,   γ_h = 1 - 2^(-5-h)

    with y = swish(W_G x + b_G) ∘ LN(o). R turns channels i and k/2 + i back by the angle θ_i = 10000^(-2i/k). In the
    paper, query and key of step n are turned by n θ; only the difference of two steps counts, and where the memory
    turns instead, steps need no numbers.

    Good at telling recent from old at fixed scales of 32 steps and more; bad where what to keep depends on the input.

    :raises ValueError: if a size is not a positive integer, or the key size is odd
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        heads: Count = 4,
        key_size: Count = 64,
        value_size: Count = 64,
    ) -> None:
        super().__init__(input_size, output_size, heads, key_size, value_size)
        if key_size % 2:
            raise ValueError(
                f"key_size must be even, such as {key_size + 1}, as channels turn in pairs; got {key_size}"
            )

    @property
    def decay(self) -> Tensor:
        """γ [H]"""
        return 1 - 2.0 ** (-5 - torch.arange(self.heads, dtype=self.dtype, device=self._like.device))

    @property
    def angle(self) -> Tensor:
        """Of each pair of channels [k / 2]."""
        channel = torch.arange(0, self.key_size, 2, dtype=self.dtype, device=self._like.device)
        return 10000.0 ** (-channel / self.key_size)

    @full_precision
    def step(self, x: Tensor, state: MatrixState) -> tuple[Tensor, MatrixState]:
        query, key, value = self.project(x)
        turned = turn(state.memory.mT, -self.angle).mT  # [B, H, k, v]
        memory = self.decay.view(-1, 1, 1) * turned + outer(key, value)
        return self.output(x, recall(memory, query)), MatrixState(memory)

    @unless_ruined
    def sequence(self, x: Tensor, state: MatrixState, starts: Tensor, since: int) -> tuple[Tensor, MatrixState]:
        query, key, value = self.project(x)  # [T, B, H, ...]
        # Queries and keys turn, as in the paper, with steps counted from here, and the memory once in the end.
        angles = self.angle * torch.arange(1, len(x) + 1, device=x.device).view(-1, 1, 1, 1)  # [T, 1, 1, k / 2]
        query, key = turn(query, angles), turn(key, angles)
        read, memory = matrix_scan(query, key, value, self.decay.view(1, 1, -1), state.memory, starts)
        return self.output(x[since:], read[since:]), MatrixState(turn(memory.mT, -angles[-1]).mT)


def turn(x: Tensor, angle: Tensor) -> Tensor:
    """Turn channels i and k/2 + i of x [..., k] by angle i [..., k / 2]."""
    (one, other), cos, sin = x.chunk(2, dim=-1), angle.cos(), angle.sin()
    return torch.cat([one * cos - other * sin, one * sin + other * cos], dim=-1)


@register_core("gla")
class GLACore(GatedReadCore):
    """Gated linear attention (Yang et al. 2024, "Gated Linear Attention Transformers with Hardware-Efficient Training",
    section 4), for each head:

        S_t = diag(α_t) S_{t-1} + k_t v_tᵀ,   o_t = S_tᵀ q_t / √k,   α_t = σ(W_2 W_1 x + b)^(1/τ)

    with y = swish(W_G x + b_G) ∘ LN(o). W_1 leads to few features (``rank``); τ (``temperature``) slows forgetting
    down. No channel fades faster than by e^-5 in a step, which for τ = 16 takes a logit of -80.

    Good at keeping what the input marks as worth it, for times that it chooses by channel; it cannot replace the value
    of one key without forgetting others.

    :param rank: number of features between the two maps of the decay
    :param temperature: τ, by which the logarithms of decays are divided
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        heads: Count = 2,
        key_size: Count = 128,
        value_size: Count = 128,
        rank: Count = 16,
        temperature: Positive = 16.0,
    ) -> None:
        require_options(GLACore, locals())
        super().__init__(input_size, output_size, heads, key_size, value_size)
        self.temperature = temperature
        self.decay = nn.Sequential(nn.Linear(input_size, rank, bias=False), nn.Linear(rank, heads * key_size))

    def log_decay(self, x: Tensor) -> Tensor:
        """log α: x [..., F] -> [..., H, k]"""
        return (F.logsigmoid(self.per_head(self.decay(x))) / self.temperature).clamp(min=-5.0)

    @full_precision
    def step(self, x: Tensor, state: MatrixState) -> tuple[Tensor, MatrixState]:
        query, key, value = self.project(x)
        decay = self.log_decay(x).exp()  # [B, H, k]
        memory = decay.unsqueeze(-1) * state.memory + outer(key, value)  # [B, H, k, v]
        return self.output(x, recall(memory, query)), MatrixState(memory)

    @unless_ruined
    def sequence(self, x: Tensor, state: MatrixState, starts: Tensor, since: int) -> tuple[Tensor, MatrixState]:
        query, key, value = self.project(x)
        read, memory = channel_matrix_scan(query, key, value, self.log_decay(x), state.memory, starts)
        return self.output(x[since:], read[since:]), MatrixState(memory)

    @full_precision
    def gates(self, x: Tensor, state: MatrixState) -> dict[str, Tensor]:
        return {"decay": self.log_decay(x).exp()}
