"""Fast weights: a recurrent network whose hidden states are recalled by an associative memory of themselves."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, Fraction, Positive, require_options
from .core import MemoryCore, full_precision, output_map
from .registry import register_core


class FastWeightsState(NamedTuple):
    hidden: Tensor  # [B, d]
    fast: Tensor  # [B, d, d]


class _RecallingCore(MemoryCore):
    """A hidden state h that is recalled by the fast weights A, a decaying sum of products of hidden states."""

    def __init__(self, input_size: int, output_size: int | None, hidden_size: int, inner_steps: int) -> None:
        width = hidden_size if output_size is None else output_size
        super().__init__(input_size, width, FastWeightsState, ((hidden_size,), (hidden_size, hidden_size)))
        self.inner_steps = inner_steps
        self.input = nn.Linear(input_size, hidden_size)  # C, b
        self.recurrent = nn.Linear(hidden_size, hidden_size, bias=False)  # W
        with torch.no_grad():
            self.recurrent.weight.copy_(0.05 * torch.eye(hidden_size))
        self.norm = nn.LayerNorm(hidden_size)
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: FastWeightsState) -> tuple[Tensor, FastWeightsState]:
        driven = self.input(x) + self.recurrent(state.hidden)
        hidden = F.relu(driven)
        for _ in range(self.inner_steps):
            recalled = (state.fast @ hidden.unsqueeze(2)).squeeze(2)  # [B, d]
            hidden = F.relu(self.norm(driven + recalled))
        decay, rate = self._rates(x, state)
        fast = decay.unsqueeze(2) * state.fast + (rate * hidden).unsqueeze(2) * hidden.unsqueeze(1)  # [B, d, d]
        return self.out(hidden), FastWeightsState(hidden, fast)

    def _rates(self, x: Tensor, state: FastWeightsState) -> tuple[Tensor, Tensor]:
        """λ and η [B, d], or what broadcasts to it."""
        raise NotImplementedError


@register_core("fast_weights")
class FastWeightsCore(_RecallingCore):
    """Fast weights with layer normalisation (Ba et al. 2016, "Using Fast Weights to Attend to the Recent Past",
    equations 1 and 2):

        h_0 = f(z_t),   h_{s+1} = f(LN(z_t + A_t h_s)),   h_{t+1} = h_S,   z_t = W h_t + C x_t + b,   f = ReLU,

    S times within a step, and A_{t+1} = λ A_t + η h_{t+1} h_{t+1}ᵀ. W starts as 0.05 times the identity.

    Good at recalling what was seen in the last 1 / (1 - λ) steps and resembles the present; bad beyond them, and in
    speed, since no two steps can be computed at once.

    :param hidden_size: number of hidden units d; the natural output width
    :param inner_steps: S, how often fast weights are applied within a step
    :param decay: λ, what is left of the fast weights after a step
    :param rate: η, how much of the new hidden state is written
    :raises ValueError: if an option is out of its range
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 128,
        inner_steps: Count = 1,
        decay: Fraction = 0.95,
        rate: Positive = 0.5,
    ) -> None:
        require_options(FastWeightsCore, locals())
        super().__init__(input_size, output_size, hidden_size, inner_steps)
        self.decay, self.rate = decay, rate

    def _rates(self, x: Tensor, state: FastWeightsState) -> tuple[Tensor, Tensor]:
        return x.new_full((1, 1), self.decay), x.new_full((1, 1), self.rate)


@register_core("weinet")
class WeiNetCore(_RecallingCore):
    """Fast weights whose update is learned, after the idea of WeiNet (Zhang and Zhou 2017, "Learning to Update
    Auto-associative Memory in Recurrent Neural Networks for Improving Sequence Memorization"): ``fast_weights`` with
    gates, one for each row, instead of the constants λ and η:

        A_{t+1} = λ_t ∘ A_t + η_t ∘ h_{t+1} h_{t+1}ᵀ,   λ_t, η_t = σ(W_x x_t + W_h h_t + b)

    There is no public code, and this was written without the paper's equations at hand: from its abstract, and from its
    description as gated fast weights by Le et al. 2020. Figures of this core are not figures of the paper.

    Good at what ``fast_weights`` is good at, over times that it learns; as slow.

    :param hidden_size: number of hidden units d; the natural output width
    :param inner_steps: S, how often fast weights are applied within a step
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 128,
        inner_steps: Count = 1,
    ) -> None:
        require_options(WeiNetCore, locals())
        super().__init__(input_size, output_size, hidden_size, inner_steps)
        self.gate_input = nn.Linear(input_size, 2 * hidden_size)
        self.gate_hidden = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        with torch.no_grad():  # where fast weights start: λ = 0.95, η = 0.5
            self.gate_input.bias.copy_(torch.tensor([2.944, 0.0]).repeat_interleave(hidden_size))

    def _rates(self, x: Tensor, state: FastWeightsState) -> tuple[Tensor, Tensor]:
        decay, rate = (self.gate_input(x) + self.gate_hidden(state.hidden)).sigmoid().chunk(2, dim=1)
        return decay, rate

    @full_precision
    def gates(self, x: Tensor, state: FastWeightsState) -> dict[str, Tensor]:
        decay, rate = self._rates(x, state)
        return {"decay": decay, "rate": rate}
