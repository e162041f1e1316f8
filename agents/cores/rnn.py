"""The plain recurrent network (Elman 1990), as in ``torch.nn.RNN``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map, start_orthogonal
from .registry import register_core
from .scan import in_segments


class RNNState(NamedTuple):
    hidden: Tensor  # [B, H]


@register_core("rnn")
class RNNCore(MemoryCore):
    """One Elman layer (Elman 1990, "Finding Structure in Time"); a linear map follows where ``output_size`` is given:

        h_t = tanh(W x_t + b + U h_{t-1} + c).

    Good at small state machines, and the cheapest core with a nonlinear state. Bad at long delays: without gates, what
    it holds changes with every input, and gradients through many steps vanish or explode.

    Weights start orthogonal, biases at zero.

    :param hidden_size: number of units H; the natural output width
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(self, input_size: Count, output_size: Count | None = None, hidden_size: Count = 256) -> None:
        require_options(RNNCore, locals())
        super().__init__(input_size, hidden_size if output_size is None else output_size, RNNState, ((hidden_size,),))
        self.rnn = nn.RNN(input_size, hidden_size)
        start_orthogonal(self.rnn)
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: RNNState) -> tuple[Tensor, RNNState]:
        hidden = self._cell(x, state)
        return self.out(hidden), RNNState(hidden)

    def sequence(self, x: Tensor, state: RNNState, starts: Tensor, since: int) -> tuple[Tensor, RNNState]:
        hidden, state = in_segments(self._segment, self.reset, x, state, starts)
        return self.out(hidden[since:]), state

    def _segment(self, x: Tensor, state: RNNState) -> tuple[Tensor, RNNState]:
        """Steps without a reset: x [S, B, F] -> hidden states [S, B, H]."""
        if len(x) == 1:
            hidden = self._cell(x[0], state)
            return hidden.unsqueeze(0), RNNState(hidden)
        states, last = self.rnn(x, state.hidden.unsqueeze(0))
        return states, RNNState(last.squeeze(0))

    def _cell(self, x: Tensor, state: RNNState) -> Tensor:
        """One step, for which the fused kernel would spend most of its time on rearranging the weights."""
        return torch.rnn_tanh_cell(x, state.hidden, *self.rnn.parameters())
