"""Gated recurrent unit (Cho et al. 2014), as in ``torch.nn.GRU``."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.checks import require_at_least
from .base import MemoryCore, first_output, full_precision, reset_free_segments
from .registry import register_core


class GRUState(NamedTuple):
    hidden: Tensor  # [B, H]


@register_core("gru")
class GRUCore(MemoryCore):
    """One GRU layer, followed by a linear map where ``output_size`` is given.

    Weights start orthogonal, biases at zero.

    :param hidden_size: number of units H; the natural output width
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(self, input_size: int, output_size: int | None = None, hidden_size: int = 256) -> None:
        require_at_least(1, hidden_size=hidden_size)
        super().__init__(input_size, hidden_size if output_size is None else output_size, GRUState, ((hidden_size,),))
        self.gru = nn.GRU(input_size, hidden_size)
        for parameter in self.gru.parameters():
            nn.init.orthogonal_(parameter) if parameter.dim() == 2 else nn.init.zeros_(parameter)
        self.out = nn.Identity() if output_size is None else nn.Linear(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        # Not the fused kernel, which for a single step spends most of its time on rearranging the weights.
        hidden = torch.gru_cell(x, state.hidden, *self.gru.parameters())
        return self.out(hidden), GRUState(hidden)

    @full_precision
    def forward(self, x: Tensor, state: GRUState, starts: Tensor, since: int = 0) -> tuple[Tensor, GRUState]:
        since = first_output(since, len(x))
        if len(x) == 1:
            return super().forward(x, state, starts)
        outputs = []
        for begin, end in reset_free_segments(starts):
            y, hidden = self.gru(x[begin:end], self.reset(state, starts[begin]).hidden.unsqueeze(0))
            state = GRUState(hidden.squeeze(0))
            outputs.append(y)
        return self.out(torch.cat(outputs)[since:]), state  # [T - since, B, O]

    @full_precision
    def gates(self, x: Tensor, state: GRUState) -> dict[str, Tensor]:
        weight_ih, weight_hh, bias_ih, bias_hh = self.gru.parameters()
        logits = F.linear(x, weight_ih, bias_ih) + F.linear(state.hidden, weight_hh, bias_hh)  # [B, 3 * H]
        reset_gate, update_gate, _ = logits.sigmoid().chunk(3, dim=1)
        return {"reset_gate": reset_gate, "update_gate": update_gate}
