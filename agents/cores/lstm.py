"""Long short-term memory (Hochreiter and Schmidhuber 1997), as in ``torch.nn.LSTM``."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map, start_orthogonal
from .registry import register_core
from .scan import in_segments


class LSTMState(NamedTuple):
    hidden: Tensor  # [B, H]
    cell: Tensor  # [B, H]


@register_core("lstm")
class LSTMCore(MemoryCore):
    """One LSTM layer, followed by a linear map where ``output_size`` is given.

    Weights start orthogonal, biases at zero.

    :param hidden_size: number of cells H; the natural output width
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(self, input_size: Count, output_size: Count | None = None, hidden_size: Count = 256) -> None:
        require_options(LSTMCore, locals())
        super().__init__(
            input_size, hidden_size if output_size is None else output_size, LSTMState, ((hidden_size,), (hidden_size,))
        )
        self.lstm = nn.LSTM(input_size, hidden_size)
        start_orthogonal(self.lstm)
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        state = self._cell(x, state)
        return self.out(state.hidden), state

    def sequence(self, x: Tensor, state: LSTMState, starts: Tensor, since: int) -> tuple[Tensor, LSTMState]:
        hidden, state = in_segments(self._segment, self.reset, x, state, starts)
        return self.out(hidden[since:]), state

    def _segment(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Steps without a reset: x [S, B, F] -> hidden states [S, B, H]."""
        if len(x) < 3:
            states = [state := self._cell(x_t, state) for x_t in x]
            return torch.stack([after.hidden for after in states]), state
        hidden, (last, cell) = self.lstm(x, (state.hidden.unsqueeze(0), state.cell.unsqueeze(0)))
        return hidden, LSTMState(last.squeeze(0), cell.squeeze(0))

    def _cell(self, x: Tensor, state: LSTMState) -> LSTMState:
        """One step: for one or two, the fused kernel would spend most of its time on rearranging the weights."""
        return LSTMState(*torch.lstm_cell(x, state, *self.lstm.parameters()))

    @full_precision
    def gates(self, x: Tensor, state: LSTMState) -> dict[str, Tensor]:
        weight_ih, weight_hh, bias_ih, bias_hh = self.lstm.parameters()
        logits = F.linear(x, weight_ih, bias_ih) + F.linear(state.hidden, weight_hh, bias_hh)  # [B, 4 * H]
        input_gate, forget_gate, _, output_gate = logits.sigmoid().chunk(4, dim=1)
        return {"input_gate": input_gate, "forget_gate": forget_gate, "output_gate": output_gate}
