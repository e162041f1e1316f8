"""LSTM encoder and decoder with additive attention (Bahdanau, Cho and Bengio 2015): a supervised baseline.

The decoder looks back at all inputs, so the memory grows with the sequence, and the model is no core.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..common.options import Count, require_options


class AttentionalLSTM(nn.Module):
    """One LSTM reads the inputs; a second one writes the answer, and attends to the outputs of the first at each step.

    Unlike in machine translation, the decoder does not get its previous answer, as no other model here does.

    :param input_size: number of input features F
    :param output_size: number of output features O; None: hidden state and context side by side
    :param hidden_size: number of cells H of each of the two
    :param attention_size: width A of the attention's hidden layer; None: ``hidden_size``
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 256,
        attention_size: Count | None = None,
    ) -> None:
        super().__init__()
        require_options(AttentionalLSTM, locals())
        attention_size = hidden_size if attention_size is None else attention_size
        self.output_size = 2 * hidden_size if output_size is None else output_size
        self.encoder = nn.LSTM(input_size, hidden_size)
        self.decoder = nn.LSTMCell(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, attention_size, bias=False)
        self.query = nn.Linear(hidden_size, attention_size)
        self.score = nn.Linear(attention_size, 1, bias=False)
        self.out = nn.Identity() if output_size is None else nn.Linear(2 * hidden_size, output_size)

    def forward(self, x: Tensor, steps: int, first: Tensor | None = None) -> Tensor:
        """x [T, B, F] -> the answer in so many steps [S, B, O].

        Where ``first`` [B] is given, the steps of a sample before that one are neither read nor attended to.
        """
        encoded, (hidden, cell), absent = self._encode(x, first)
        hidden, cell = hidden.squeeze(0), cell.squeeze(0)
        keys = self.key(encoded)  # [T, B, A]
        outputs = []
        for _ in range(steps):
            scores = self.score(torch.tanh(keys + self.query(hidden))).masked_fill(absent, -torch.inf)
            weights = F.softmax(scores, dim=0)  # [T, B, 1]
            context = (weights * encoded).sum(dim=0)  # [B, H]
            hidden, cell = self.decoder(context, (hidden, cell))
            outputs.append(torch.cat([hidden, context], dim=1))
        return self.out(torch.stack(outputs))

    def _encode(self, x: Tensor, first: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """Outputs [T, B, H] and last state [1, B, H] of the encoder, and which outputs are of no step [T, B, 1].

        PyTorch's LSTM takes padding only behind a sequence, so each sample moves to the front.
        """
        step = torch.arange(len(x), device=x.device)[:, None]  # [T, 1]
        if first is None:
            return *self.encoder(x), torch.zeros_like(step, dtype=torch.bool)[:, :, None]
        lengths = len(x) - first
        moved = x.gather(0, (step + first).clamp(max=len(x) - 1)[:, :, None].expand_as(x))
        packed, state = self.encoder(pack_padded_sequence(moved, lengths.cpu(), enforce_sorted=False))
        return pad_packed_sequence(packed, total_length=len(x))[0], state, (step >= lengths)[:, :, None]
