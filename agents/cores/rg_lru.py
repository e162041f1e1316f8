"""The recurrent block of Griffin (De et al. 2024, "Griffin: Mixing Gated Linear Recurrences with Local Attention for
Efficient Language Models"), around its real-gated linear recurrent unit (RG-LRU)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .registry import register_core
from .scan import linear_scan
from .short_conv import ShortConv

C = 8.0  # the paper's constant c


class RGLRUState(NamedTuple):
    hidden: Tensor  # h [B, H]
    conv: Tensor  # inputs of the convolution before the present one [B, K - 1, H]


@register_core("rg_lru")
class RGLRUCore(MemoryCore):
    """Griffin's recurrent block (De et al. 2024, sections 2.3 and 2.4), with its short convolution before the RG-LRU,
    and without the residual around it:

        u_t = Conv(W_x x + b_x)_t + b,  r_t = σ(W_a u_t + b_a),  i_t = σ(W_i u_t + b_i),
        log a_t = -c r_t ∘ softplus(Λ),  h_t = a_t ∘ h_{t-1} + sqrt(1 - a_t²) ∘ i_t ∘ u_t,
        y_t = h_t ∘ GeLU(W_y x_t + b_y),

    where c = 8, and 1 - a_t² is held above 1e-12, since the root has no gradient at 0. A linear map follows where
    ``output_size`` is given. Gates are dense, as in the paper's equations, not block-diagonal as in its large models.

    Good at long delays with a small state: a unit whose r is near 0 keeps its value, and takes in next to nothing. Bad
    at recalling many things by their keys, for which a vector has little room, and at parity.

    At first, exp(-c softplus(Λ)) is uniform from 0.9 to 0.999, as in the paper.

    :param hidden_size: number of units H; the natural output width
    :param conv_size: number of steps K that the convolution sees
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 256,
        conv_size: Count = 4,
    ) -> None:
        require_options(RGLRUCore, locals())
        width = hidden_size if output_size is None else output_size
        super().__init__(input_size, width, RGLRUState, ((hidden_size,), (conv_size - 1, hidden_size)))
        self.project, self.branch = nn.Linear(input_size, hidden_size), nn.Linear(input_size, hidden_size)
        self.conv = ShortConv(hidden_size, conv_size)
        self.gate_map = nn.Linear(hidden_size, 2 * hidden_size)
        decay = torch.empty(hidden_size).uniform_(0.9, 0.999)  # where r is 1
        self.Lambda = nn.Parameter(torch.log(torch.expm1(-torch.log(decay) / C)))  # its softplus is -log(decay) / c
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: RGLRUState) -> tuple[Tensor, RGLRUState]:
        u, conv = self.conv.step(self.project(x), state.conv)
        decay, write = self._update(u)
        hidden = decay * state.hidden + write
        return self._read(hidden, x), RGLRUState(hidden, conv)

    def sequence(self, x: Tensor, state: RGLRUState, starts: Tensor, since: int) -> tuple[Tensor, RGLRUState]:
        u, conv = self.conv.sequence(self.project(x), state.conv, starts)
        hidden = linear_scan(*self._update(u), state.hidden, starts)  # [T, B, H]
        return self._read(hidden[since:], x[since:]), RGLRUState(hidden[-1], conv)

    def _gates(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Recurrence gate r and input gate i: u [..., H] -> each [..., H]."""
        recurrence, take = self.gate_map(u).sigmoid().chunk(2, dim=-1)
        return recurrence, take

    def _update(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """What is left of the hidden state, and what is added: u [..., H] -> a, sqrt(1 - a²) ∘ i ∘ u [..., H]."""
        recurrence, take = self._gates(u)
        log_decay = -C * recurrence * F.softplus(self.Lambda)
        room = -torch.expm1(2 * log_decay)  # 1 - a², exactly where a is almost 1
        return log_decay.exp(), room.clamp(min=1e-12).sqrt() * take * u

    def _read(self, hidden: Tensor, x: Tensor) -> Tensor:
        return self.out(hidden * F.gelu(self.branch(x), approximate="tanh"))

    @full_precision
    def gates(self, x: Tensor, state: RGLRUState) -> dict[str, Tensor]:
        u, _ = self.conv.step(self.project(x), state.conv)
        return dict(zip(("recurrence_gate", "input_gate"), self._gates(u), strict=True))
