"""Mamba-2 (Dao and Gu 2024, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured
State Space Duality")."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, head_width, output_map
from .mamba import initial_step_sizes
from .registry import register_core
from .scan import matrix_scan, unless_ruined
from .short_conv import ShortConv


class Mamba2State(NamedTuple):
    memory: Tensor  # h [B, heads, N, P]
    conv: Tensor  # inputs of the convolution before the present one [B, K - 1, D + 2 N]


class Selection(NamedTuple):
    """What an input decides about the memories."""

    query: Tensor  # C [..., N]
    key: Tensor  # B [..., N]
    value: Tensor  # Δ u [..., heads, P]
    decay: Tensor  # exp(Δ A) [..., heads]


@register_core("mamba2")
class Mamba2Core(MemoryCore):
    """A Mamba-2 block (Dao and Gu 2024, sections 6 and 7.1) without the norm and the residual around it. Each head has
    a matrix memory with one decay; all heads share keys B and queries C:

        [u, B, C]_t = SiLU(Conv(W_uBC x)_t + b),  Δ_t = softplus(W_Δ x_t + b_Δ),  A = -exp(log_A),
        h_t = exp(Δ_t A) h_{t-1} + B_t (Δ_t u_t)ᵀ,  o_t = h_tᵀ C_t + D u_t,  for each head,
        y_t = RMSNorm(o_t ∘ SiLU(W_z x_t)).

    A linear map follows where ``output_size`` is given. Good at recalling by content and at long delays. Bad at parity
    and other state tracking, and at replacing what a key holds: it adds, where a delta rule would correct.

    At first, A is from -16 to -1, and Δ from 0.001 to 0.1, both as in the paper.

    :param hidden_size: number of channels D; the natural output width
    :param heads: number of heads, which divides ``hidden_size``
    :param key_size: size N of keys and queries
    :param conv_size: number of steps K that the convolution sees
    :raises ValueError: if a size is not a positive integer, or the heads do not divide the channels
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 256,
        heads: Count = 4,
        key_size: Count = 64,
        conv_size: Count = 4,
    ) -> None:
        require_options(Mamba2Core, locals())
        memory = heads, key_size, head_width(hidden_size, heads)
        convolved = hidden_size + 2 * key_size
        width = hidden_size if output_size is None else output_size
        super().__init__(input_size, width, Mamba2State, (memory, (conv_size - 1, convolved)))
        self.heads, self.split = heads, [hidden_size, convolved, heads]
        self.project = nn.Linear(input_size, sum(self.split), bias=False)  # W_z, W_uBC, W_Δ
        self.conv = ShortConv(convolved, conv_size)
        self.step_size_bias = nn.Parameter(initial_step_sizes(heads))
        self.log_A = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = nn.RMSNorm(hidden_size, eps=1e-5)
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        z, convolved, step_size = self.project(x).split(self.split, dim=-1)
        convolved, conv = self.conv.step(convolved, state.conv)
        u, (query, key, value, decay) = self._selection(convolved, step_size)
        write = key.unsqueeze(1).unsqueeze(3) * value.unsqueeze(2)  # [B, heads, N, P]
        memory = decay.unsqueeze(2).unsqueeze(3) * state.memory + write
        read = (query.unsqueeze(1).unsqueeze(2) @ memory).squeeze(2)  # [B, heads, P]
        return self._output(read, u, z), Mamba2State(memory, conv)

    @unless_ruined
    def sequence(self, x: Tensor, state: Mamba2State, starts: Tensor, since: int) -> tuple[Tensor, Mamba2State]:
        z, convolved, step_size = self.project(x).split(self.split, dim=-1)
        convolved, conv = self.conv.sequence(convolved, state.conv, starts)
        u, (query, key, value, decay) = self._selection(convolved, step_size)
        query, key = query.unsqueeze(2), key.unsqueeze(2)  # [T, B, 1, N]
        read, memory = matrix_scan(query, key, value, decay, state.memory, starts)
        return self._output(read[since:], u[since:], z[since:]), Mamba2State(memory, conv)

    def _selection(self, convolved: Tensor, step_size: Tensor) -> tuple[Tensor, Selection]:
        """The channels u by heads [..., heads, P], and what else an input decides."""
        key_size = self.state_spec["memory"][1]
        u, key, query = F.silu(convolved).split([self.split[0], key_size, key_size], dim=-1)
        u = u.unflatten(-1, (self.heads, -1))
        step_size = F.softplus(step_size + self.step_size_bias)  # Δ [..., heads]
        return u, Selection(query, key, step_size.unsqueeze(-1) * u, torch.exp(-step_size * self.log_A.exp()))

    @full_precision
    def gates(self, x: Tensor, state: Mamba2State) -> dict[str, Tensor]:
        _, convolved, step_size = self.project(x).split(self.split, dim=-1)
        return {"decay": self._selection(convolved, step_size)[1].decay}

    def _output(self, read: Tensor, u: Tensor, z: Tensor) -> Tensor:
        """Read-outs and channels [..., heads, P], z [..., D] -> y [..., O]."""
        o = (read + self.D.unsqueeze(1) * u).flatten(-2)
        return self.out(self.norm(o * F.silu(z)))
