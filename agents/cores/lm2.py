"""The memory of LM2 (Kang et al. 2025, "LM2: Large Memory Models"), a bank of gated slots read by cross-attention.

https://arxiv.org/abs/2502.06049, from the paper alone: its authors' code was not looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...common.options import Count, require_options
from .attention import attend
from .core import MemoryCore, full_precision, head_width, output_map
from .registry import register_core
from .squash import squash


class LM2State(NamedTuple):
    bank: Tensor  # [B, N, D]


@register_core("lm2")
class LM2Core(MemoryCore):
    """N slots m_i, which the input attends to, and which take over, by gates, what it finds there:

        e = W x
        r = attention(q = W_q e,  k_i = W_k m_i,  v_i = W_v m_i)      per head
        y = e + σ(W_o r + b_o) ∘ r
        m_i ← σ(W_in,i e + b_in,i) ∘ tanh(r) + σ(W_f,i r + b_f,i) ∘ m_i

    The paper has such a bank in each block of a language model. There e also attends to the other tokens of a segment,
    which a single step does not have. The bank starts as an identity matrix, as in the paper. Where the paper leaves
    things open, they are chosen so that the slots stay different: each has gates of its own (with common ones, the same
    would be added to all), and gates have biases, those of the forget gates 2 at the start, so that slots last.

    Good at holding a few things for long, like an LSTM with N cells per unit. New content enters through gates and
    attention alone, so it is slow to learn exact copies.

    The output is y, followed by a linear map where ``output_size`` is given.

    :param slots: number N of slots
    :param width: D, of a slot
    :param heads: number of attention heads, a divisor of the width
    :raises ValueError: if a size is not a positive integer, or ``heads`` does not divide ``width``
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        slots: Count = 16,
        width: Count = 96,
        heads: Count = 4,
    ) -> None:
        require_options(LM2Core, locals())
        head_width(width, heads, "width")
        super().__init__(input_size, width if output_size is None else output_size, LM2State, ((slots, width),))
        self.heads = heads
        self.embedding = nn.Linear(input_size, width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.output_gate = nn.Linear(width, width)
        self.input_gate, self.forget_gate = nn.Linear(width, slots * width), nn.Linear(width, slots * width)
        nn.init.constant_(self.forget_gate.bias, 2.0)
        self.out = output_map(width, output_size)

    def initial_state(self, batch_size: int) -> LM2State:
        """The rows of an identity matrix, padded with zeros or cut off."""
        identity = torch.eye(*self.state_spec["bank"], dtype=self.dtype, device=self._like.device)
        return LM2State(identity.expand(batch_size, -1, -1))

    @full_precision
    def step(self, x: Tensor, state: LM2State) -> tuple[Tensor, LM2State]:
        e = self.embedding(x)  # [B, D]
        read = self._read(e, state.bank)  # [B, D]
        input_gate, forget_gate, output_gate = self._gates(e, read)
        y = e + output_gate * read
        bank = torch.addcmul(input_gate * squash(read).unsqueeze(1), forget_gate, state.bank)  # [B, N, D]
        return self.out(y), LM2State(bank)

    def _read(self, e: Tensor, bank: Tensor) -> Tensor:
        """What all heads find: e [B, D], slots [B, N, D] -> [B, D]."""
        query = self.query(e).unflatten(1, (self.heads, -1)).unsqueeze(1)  # [B, 1, H, d]
        return attend(query, self.key, self.value, bank).squeeze(1)

    def _gates(self, e: Tensor, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input and forget gates of each slot [B, N, D], output gate [B, D]."""
        into, forget = self.input_gate(e).sigmoid(), self.forget_gate(read).sigmoid()  # [B, N * D]
        of_slots = (gate.unflatten(1, self.state_spec["bank"]) for gate in (into, forget))
        return *of_slots, self.output_gate(read).sigmoid()

    @full_precision
    def gates(self, x: Tensor, state: LM2State) -> dict[str, Tensor]:
        e = self.embedding(x)
        gates = self._gates(e, self._read(e, state.bank))
        return dict(zip(("input_gate", "forget_gate", "output_gate"), gates, strict=True))
