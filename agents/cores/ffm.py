"""Fast and forgetful memory (Morad et al. 2023, "Reinforcement Learning with Fast and Forgetful Memory")."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .registry import register_core
from .scan import linear_scan


class FFMState(NamedTuple):
    real: Tensor  # Re S [B, m, c]
    imaginary: Tensor  # Im S [B, m, c]


@register_core("ffm")
class FFMCore(MemoryCore):
    """Fast and forgetful memory (Morad et al. 2023, section 4): traces that decay at m rates and turn at c frequencies.

        x̃_t = (W_1 x_t + b_1) ∘ σ(W_2 x_t + b_2),
        S_t = γ ∘ S_{t-1} + x̃_t 1ᵀ,  γ_jk = exp(-|α_j| + i ω_k),
        z_t = LN(W_3 [Re S_t, Im S_t] + b_3),  g_t = σ(W_4 x_t + b_4),
        y_t = g_t ∘ z_t + (1 - g_t) ∘ (W_5 x_t + b_5).

    A linear map follows where ``output_size`` is given. S is computed by the recurrence itself, for sequences of any
    length: dividing powers of γ by each other would overflow in long ones.

    Good at what happened when, within about ``max_period`` steps. Bad at holding something for ever, since decays do
    not depend on inputs.

    At first, α spreads so that 1 % is left after 7 to ``max_period`` steps, and ω turns once in 1 to ``max_period``.

    :param hidden_size: number of outputs before the linear map; the natural output width
    :param memory_size: number of traces m
    :param context_size: number of frequencies c
    :param max_period: the longest time at first, in steps
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 256,
        memory_size: Count = 128,
        context_size: Count = 4,
        max_period: Count = 1024,
    ) -> None:
        require_options(FFMCore, locals())
        width = hidden_size if output_size is None else output_size
        super().__init__(input_size, width, FFMState, ((memory_size, context_size),) * 2)
        self.sizes = [memory_size, memory_size, hidden_size, hidden_size]
        self.project = nn.Linear(input_size, sum(self.sizes))  # W_1, W_2, W_4, W_5
        self.alpha = nn.Parameter(torch.linspace(math.log(100) / 7, math.log(100) / max_period, memory_size))
        self.omega = nn.Parameter(2 * math.pi / torch.linspace(1, max_period, context_size))
        self.mix = nn.Linear(2 * memory_size * context_size, hidden_size)
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: FFMState) -> tuple[Tensor, FFMState]:
        written, *rest = self._projected(x)
        trace = self._decay() * torch.complex(*state) + written.unsqueeze(-1)  # [B, m, c]
        return self._read(trace, *rest), FFMState(trace.real, trace.imag)

    def sequence(self, x: Tensor, state: FFMState, starts: Tensor, since: int) -> tuple[Tensor, FFMState]:
        written, gate, skip = self._projected(x)
        old, decay = torch.complex(*state), self._decay()
        trace = linear_scan(decay, written.unsqueeze(-1).to(decay.dtype).expand(-1, *old.shape), old, starts)
        return self._read(trace[since:], gate[since:], skip[since:]), FFMState(trace[-1].real, trace[-1].imag)

    def _decay(self) -> Tensor:
        """γ, complex [m, c]."""
        return torch.polar(*torch.broadcast_tensors(torch.exp(-self.alpha.abs()).unsqueeze(1), self.omega))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is written x̃ [..., m], the output gate g and what passes by the memory, each [..., H]."""
        values, take, gate, skip = self.project(x).split(self.sizes, dim=-1)
        return values * take.sigmoid(), gate.sigmoid(), skip

    def _read(self, trace: Tensor, gate: Tensor, skip: Tensor) -> Tensor:
        parts = torch.view_as_real(trace).flatten(-3)  # [..., 2 m c], Re and Im of a trace side by side
        z = F.layer_norm(self.mix(parts), gate.shape[-1:])
        return self.out(torch.lerp(skip, z, gate))

    @full_precision
    def gates(self, x: Tensor, state: FFMState) -> dict[str, Tensor]:
        return {"output_gate": self._projected(x)[1]}
