"""Gated recurrent unit (Cho et al. 2014), as in ``torch.nn.GRU``."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map, start_orthogonal
from .registry import register_core
from .scan import in_segments


class GRUState(NamedTuple):
    hidden: Tensor  # [B, H]


@register_core("gru")
class GRUCore(MemoryCore):
    """One GRU layer, followed by a linear map where ``output_size`` is given.

    Weights start orthogonal, biases at zero.

    :param hidden_size: number of units H; the natural output width
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(self, input_size: Count, output_size: Count | None = None, hidden_size: Count = 256) -> None:
        require_options(GRUCore, locals())
        super().__init__(input_size, hidden_size if output_size is None else output_size, GRUState, ((hidden_size,),))
        self.gru = nn.GRU(input_size, hidden_size)
        start_orthogonal(self.gru)
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        hidden = self._cell(x, state)
        return self.out(hidden), GRUState(hidden)

    def sequence(self, x: Tensor, state: GRUState, starts: Tensor, since: int) -> tuple[Tensor, GRUState]:
        hidden, state = in_segments(self._segment, self.reset, x, state, starts)
        return self.out(hidden[since:]), state

    def _segment(self, x: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        """Steps without a reset: x [S, B, F] -> hidden states [S, B, H]."""
        if len(x) == 1:
            hidden = self._cell(x[0], state)
            return hidden.unsqueeze(0), GRUState(hidden)
        states, last = self.gru(x, state.hidden.unsqueeze(0))
        return states, GRUState(last.squeeze(0))

    def _cell(self, x: Tensor, state: GRUState) -> Tensor:
        """One step, for which the fused kernel would spend most of its time on rearranging the weights."""
        return torch.gru_cell(x, state.hidden, *self.gru.parameters())

    @full_precision
    def gates(self, x: Tensor, state: GRUState) -> dict[str, Tensor]:
        """Near 1, the update gate keeps the hidden state, as torch has it (in ``min_gru``, near 0)."""
        weight_ih, weight_hh, bias_ih, bias_hh = self.gru.parameters()
        logits = F.linear(x, weight_ih, bias_ih) + F.linear(state.hidden, weight_hh, bias_hh)  # [B, 3 * H]
        reset_gate, update_gate, _ = logits.sigmoid().chunk(3, dim=1)
        return {"reset_gate": reset_gate, "update_gate": update_gate}
