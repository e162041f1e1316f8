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
from .scan import loop
from .squash import squash


class LM2State(NamedTuple):
    bank: Tensor  # [B, N, D]


class Projection(NamedTuple):
    """What the input alone decides about a step, so that a whole sequence is projected at once."""

    e: Tensor  # [..., D]
    query: Tensor  # [..., H, d]
    input_gate: Tensor  # of each slot [..., N, D]


@register_core("lm2")
class LM2Core(MemoryCore):
    """N slots m_i, which the input attends to, and which take over, by gates, what it finds there:

        e = W x + b
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
    :param hidden_size: D, of a slot; the natural output width
    :param heads: number of attention heads, a divisor of ``hidden_size``
    :raises ValueError: if a size is not a positive integer, or ``heads`` does not divide ``hidden_size``
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        slots: Count = 16,
        hidden_size: Count = 96,
        heads: Count = 4,
    ) -> None:
        require_options(LM2Core, locals())
        head_width(hidden_size, heads)
        bank = slots, hidden_size
        super().__init__(input_size, hidden_size if output_size is None else output_size, LM2State, (bank,))
        self.heads = heads
        self.embedding = nn.Linear(input_size, hidden_size)
        self.query, self.key, self.value = (nn.Linear(hidden_size, hidden_size, bias=False) for _ in range(3))
        self.output_gate = nn.Linear(hidden_size, hidden_size)
        self.input_gate, self.forget_gate = (nn.Linear(hidden_size, slots * hidden_size) for _ in range(2))
        nn.init.constant_(self.forget_gate.bias, 2.0)
        self.out = output_map(hidden_size, output_size)

    def initial_state(self, batch_size: int) -> LM2State:
        """The rows of an identity matrix, padded with zeros or cut off."""
        identity = torch.eye(*self.state_spec["bank"], dtype=self.dtype, device=self._like.device)
        return LM2State(identity.expand(batch_size, -1, -1))

    @full_precision
    def step(self, x: Tensor, state: LM2State) -> tuple[Tensor, LM2State]:
        projection = self._project(x)
        read, state = self._step(projection, state)
        return self._output(projection.e, read), state

    def sequence(self, x: Tensor, state: LM2State, starts: Tensor, since: int) -> tuple[Tensor, LM2State]:
        """The loop over steps, but inputs are projected and outputs made for all steps at once."""
        projection = self._project(x)
        inputs = [Projection(*parts) for parts in zip(*projection, strict=True)]
        reads, state = loop(self._step, self.reset, inputs, state, starts)
        return self._output(projection.e[since:], torch.stack(reads[since:])), state

    @full_precision
    def gates(self, x: Tensor, state: LM2State) -> dict[str, Tensor]:
        projection = self._project(x)
        read = self._read(projection.query, state.bank)
        gates = {"input_gate": projection.input_gate, "forget_gate": self._forget_gate(read)}
        return gates | {"output_gate": self.output_gate(read).sigmoid()}

    def _project(self, x: Tensor) -> Projection:
        e = self.embedding(x)
        gate = self.input_gate(e).sigmoid().unflatten(-1, self.state_spec["bank"])
        return Projection(e, self.query(e).unflatten(-1, (self.heads, -1)), gate)

    def _step(self, projection: Projection, state: LM2State) -> tuple[Tensor, LM2State]:
        """The update, for a projected input: what was read [B, D], and the next bank."""
        read = self._read(projection.query, state.bank)
        new = projection.input_gate * squash(read).unsqueeze(1)  # [B, N, D]
        return read, LM2State(torch.addcmul(new, self._forget_gate(read), state.bank))

    def _read(self, query: Tensor, bank: Tensor) -> Tensor:
        """What all heads find: queries [B, H, d], slots [B, N, D] -> [B, D]."""
        return attend(query.unsqueeze(1), self.key, self.value, bank).squeeze(1)

    def _forget_gate(self, read: Tensor) -> Tensor:
        """Of each slot [B, N, D]."""
        return self.forget_gate(read).sigmoid().unflatten(1, self.state_spec["bank"])

    def _output(self, e: Tensor, read: Tensor) -> Tensor:
        """[..., D] each -> [..., O]."""
        return self.out(e + self.output_gate(read).sigmoid() * read)
