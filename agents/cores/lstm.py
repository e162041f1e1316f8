"""Long short-term memory (Hochreiter and Schmidhuber 1997), as in ``torch.nn.LSTM``."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.checks import require_at_least
from .base import MemoryCore, first_output, full_precision, reset_free_segments
from .registry import register_core


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

    def __init__(self, input_size: int, output_size: int | None = None, hidden_size: int = 256) -> None:
        require_at_least(1, hidden_size=hidden_size)
        super().__init__(
            input_size, hidden_size if output_size is None else output_size, LSTMState, ((hidden_size,), (hidden_size,))
        )
        self.lstm = nn.LSTM(input_size, hidden_size)
        for parameter in self.lstm.parameters():
            nn.init.orthogonal_(parameter) if parameter.dim() == 2 else nn.init.zeros_(parameter)
        self.out = nn.Identity() if output_size is None else nn.Linear(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        # Not the fused kernel, which for a single step spends most of its time on rearranging the weights.
        state = LSTMState(*torch.lstm_cell(x, state, *self.lstm.parameters()))
        return self.out(state.hidden), state

    @full_precision
    def forward(self, x: Tensor, state: LSTMState, starts: Tensor, since: int = 0) -> tuple[Tensor, LSTMState]:
        since = first_output(since, len(x))
        if len(x) == 1:
            return super().forward(x, state, starts)
        outputs = []
        for begin, end in reset_free_segments(starts):
            hidden, cell = self.reset(state, starts[begin])
            y, (hidden, cell) = self.lstm(x[begin:end], (hidden.unsqueeze(0), cell.unsqueeze(0)))  # [S, B, H]
            state = LSTMState(hidden.squeeze(0), cell.squeeze(0))
            outputs.append(y)
        return self.out(torch.cat(outputs)[since:]), state  # [T - since, B, O]

    @full_precision
    def gates(self, x: Tensor, state: LSTMState) -> dict[str, Tensor]:
        weight_ih, weight_hh, bias_ih, bias_hh = self.lstm.parameters()
        logits = F.linear(x, weight_ih, bias_ih) + F.linear(state.hidden, weight_hh, bias_hh)  # [B, 4 * H]
        input_gate, forget_gate, _, output_gate = logits.sigmoid().chunk(4, dim=1)
        return {"input_gate": input_gate, "forget_gate": forget_gate, "output_gate": output_gate}
