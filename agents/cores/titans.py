"""The long-term memory of Titans (Behrouz, Zhong and Mirrokni 2025): a network that learns as it goes."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, Positive, require_options
from .core import MemoryCore, full_precision, output_map
from .registry import register_core
from .unit import unit_length


class TitansState(NamedTuple):
    weight1: Tensor  # of the memory [B, h, d]
    weight2: Tensor  # of the memory [B, d, h]
    momentum1: Tensor  # of weight1 [B, h, d]
    momentum2: Tensor  # of weight2 [B, d, h]


class Projection(NamedTuple):
    """What the input decides about a step."""

    query: Tensor  # [B, d], of length 1
    key: Tensor  # [B, d], of length 1
    value: Tensor  # [B, d]
    rate: Tensor  # θ [B, 1], in (0, 1)
    momentum: Tensor  # η [B, 1], in (0, 1)
    decay: Tensor  # α [B, 1], in (0, 1)


@register_core("titans")
class TitansCore(MemoryCore):
    """A memory M of two layers, M(k) = W2 gelu(W1 k), which at each step learns to map a key to a value.

    "Titans: learning to memorize at test time" (Behrouz, Zhong and Mirrokni 2025, https://arxiv.org/abs/2501.00663),
    equations 8 to 15: gradient descent on the mean squared error ℓ, with momentum S, the surprise, and weight decay,

        S_t = η_t S_{t-1} - θ_t ∇ℓ(M_{t-1}; k_t, v_t),   M_t = (1 - α_t) M_{t-1} + S_t,   y_t = M_t(q_t),

    where θ, η and α are sigmoids of linear maps of the input, and q, k and v the SiLU of such, q and k of length 1. The
    gradient is written out, so that the core can be differentiated. The memory of a new episode is learned. Of the
    paper's models, this is the neural memory alone: no attention, no persistent memory, no convolution. The mean
    instead of the sum of the squares, which scales θ, and a limit to the length of the gradient keep such a descent
    from diverging. Where the paper lets weights decay to zero, where both layers have no gradient and the memory is
    lost for good, they decay to those of a new episode.

    Good at mappings that are not linear, of which it keeps more than a matrix of its size. Slow, since no two steps can
    be taken at once.

    :param memory_size: width d of keys and values, the natural output width
    :param hidden_size: width h of the hidden layer of the memory
    :param largest_surprise: limit c of the length of a gradient, which is divided by (1 + |∇ℓ|² / c²)^½; None: none, as
        in the paper
    :param forget_to: what weights decay to: the initial ones, or zero, as in the paper
    :raises ValueError: if a size is not a positive integer, ``largest_surprise`` not a positive number, or there is no
        such ``forget_to``
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        memory_size: Count = 64,
        hidden_size: Count = 64,
        largest_surprise: Positive | None = 1.0,
        forget_to: Literal["initial", "zero"] = "initial",
    ) -> None:
        require_options(TitansCore, locals())
        into, out_of = (hidden_size, memory_size), (memory_size, hidden_size)
        shapes = (into, out_of, into, out_of)
        super().__init__(input_size, memory_size if output_size is None else output_size, TitansState, shapes)
        self.forget_to, self.largest_surprise = forget_to, math.inf if largest_surprise is None else largest_surprise
        self.qkv = nn.Linear(input_size, 3 * memory_size, bias=False)
        self.gates_of_input = nn.Linear(input_size, 3)  # θ, η, α
        with torch.no_grad():
            self.gates_of_input.bias.copy_(torch.tensor([0.0, 0.0, -4.0]))  # a memory that at first forgets slowly
        # A key of length 1 makes hidden units of order 1.
        self.initial_weight1 = nn.Parameter(torch.randn(into))
        self.initial_weight2 = nn.Parameter(torch.randn(out_of) * hidden_size**-0.5)
        self.out = output_map(memory_size, output_size)

    def initial_state(self, batch_size: int) -> TitansState:
        """The learned memory, without momentum."""
        empty = super().initial_state(batch_size)
        weight1, weight2 = self.initial_weight1.expand_as(empty.weight1), self.initial_weight2.expand_as(empty.weight2)
        return empty._replace(weight1=weight1, weight2=weight2)

    @full_precision
    def step(self, x: Tensor, state: TitansState) -> tuple[Tensor, TitansState]:
        y, state = self._update(self._project(x), state)
        return self.out(y), state

    @full_precision
    def gates(self, x: Tensor, state: TitansState) -> dict[str, Tensor]:
        projection = self._project(x)
        return {f"{name}_gate": getattr(projection, name) for name in ("rate", "momentum", "decay")}

    def _project(self, x: Tensor) -> Projection:
        query, key, value = F.silu(self.qkv(x)).chunk(3, dim=-1)
        rate, momentum, decay = self.gates_of_input(x).sigmoid().split(1, dim=-1)
        return Projection(unit_length(query), unit_length(key), value, rate, momentum, decay)

    def _update(self, projection: Projection, state: TitansState) -> tuple[Tensor, TitansState]:
        """Learn a value [B, d], then recall one: the value that the memory has for the query [B, d], and the memory."""
        query, key, value, rate, momentum, decay = projection
        # The gradient of the mean squared error: d_hidden ⊗ k for the first layer, d_predicted ⊗ a for the second.
        hidden = _apply(state.weight1, key)  # [B, h]
        active = F.gelu(hidden)
        d_predicted = 2 / value.shape[1] * (_apply(state.weight2, active) - value)  # [B, d]
        d_hidden = _apply(state.weight2.mT, d_predicted) * _gelu_slope(hidden)  # [B, h]
        square = d_hidden.square().sum(1) * key.square().sum(1) + d_predicted.square().sum(1) * active.square().sum(1)
        rate = rate * (1 + square.unsqueeze(1) / self.largest_surprise**2).rsqrt()

        momentum1 = _add_outer(momentum.unsqueeze(2) * state.momentum1, -rate * d_hidden, key)  # [B, h, d]
        momentum2 = _add_outer(momentum.unsqueeze(2) * state.momentum2, -rate * d_predicted, active)  # [B, d, h]
        forgotten1: Tensor = self.initial_weight1
        forgotten2: Tensor = self.initial_weight2
        if self.forget_to == "zero":
            forgotten1, forgotten2 = torch.zeros_like(forgotten1), torch.zeros_like(forgotten2)
        weight1 = torch.lerp(state.weight1, forgotten1, decay.unsqueeze(2)) + momentum1
        weight2 = torch.lerp(state.weight2, forgotten2, decay.unsqueeze(2)) + momentum2
        y = _apply(weight2, F.gelu(_apply(weight1, query)))
        return y, TitansState(weight1, weight2, momentum1, momentum2)


def _apply(weight: Tensor, x: Tensor) -> Tensor:
    """A map of each row of the batch: weight [B, m, n], x [B, n] -> [B, m]."""
    return (weight @ x.unsqueeze(2)).squeeze(2)


def _add_outer(matrix: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """matrix [B, m, n] + x [B, m] ⊗ y [B, n]."""
    return torch.baddbmm(matrix, x.unsqueeze(2), y.unsqueeze(1))


def _gelu_slope(x: Tensor) -> Tensor:
    """The derivative of gelu(x) = x Φ(x), with the normal distribution function Φ."""
    return torch.special.ndtr(x) + x * torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
