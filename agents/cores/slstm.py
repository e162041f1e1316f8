"""sLSTM (Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory"): an LSTM with exponential gates."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, head_width, output_map
from .registry import register_core
from .scan import loop
from .squash import squash


class SLSTMState(NamedTuple):
    hidden: Tensor  # h [B, heads, d]
    cell: Tensor  # c [B, heads, d], divided by exp(m)
    normaliser: Tensor  # n [B, heads, d], divided by exp(m)
    stabiliser: Tensor  # m [B, heads, d], a logarithm


@register_core("slstm")
class SLSTMCore(MemoryCore):
    """One layer of sLSTM cells (Beck et al. 2024, section 2.2), followed by a linear map where
    ``output_size`` is given. With z̃, ĩ, f̃, õ = W x_t + R h_{t-1} + b, where R relates only units of the same head:

        m_t = max(log f_t + m_{t-1}, ĩ_t),  f_t = σ(f̃_t) or exp(f̃_t),
        i'_t = exp(ĩ_t - m_t),  f'_t = exp(log f_t + m_{t-1} - m_t),
        c_t = f'_t ∘ c_{t-1} + i'_t ∘ tanh(z̃_t),  n_t = f'_t ∘ n_{t-1} + i'_t,  h_t = σ(õ_t) ∘ c_t / n_t.

    An episode begins with m_1 = ĩ_1, since there is nothing before it; n is then never below 1. What the paper puts
    around these cells (a convolution, group normalisation, an MLP) is left to blocks around the core.

    Good at state tracking (parity, counting), as the LSTM is, and at revising what it holds, since a new input may
    outweigh all that was before it. Bad at speed: the state is nonlinear, so its steps run one after the other.

    The forget biases of a head's units start spread from 3 to 6, memories of about twenty to four hundred steps, as in
    one setting of the released code, where R starts at zero.

    :param hidden_size: number of cells in all; the natural output width
    :param heads: number of heads, which divides ``hidden_size``
    :param forget: whether the forget gate is a sigmoid or exponential
    :raises ValueError: if a size is not a positive integer, or the heads do not divide the cells
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 256,
        heads: Count = 4,
        forget: Literal["sigmoid", "exp"] = "sigmoid",
    ) -> None:
        require_options(SLSTMCore, locals())
        head_size = head_width(hidden_size, heads)
        width = hidden_size if output_size is None else output_size
        super().__init__(input_size, width, SLSTMState, ((heads, head_size),) * 4)
        self.heads, self.forget = heads, forget
        self.project = nn.Linear(input_size, 4 * hidden_size)
        self.recurrent = nn.Parameter(torch.randn(heads, head_size, 4 * head_size) * head_size**-0.5)
        with torch.no_grad():
            bias = self.project.bias.view(heads, 4, head_size)
            bias.zero_()
            bias[:, 2] = torch.linspace(3.0, 6.0, head_size)
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: SLSTMState) -> tuple[Tensor, SLSTMState]:
        _, state = self._step(self._projected(x), state)
        return self.out(state.hidden.flatten(1)), state

    def sequence(self, x: Tensor, state: SLSTMState, starts: Tensor, since: int) -> tuple[Tensor, SLSTMState]:
        """The loop over steps, but inputs are projected and outputs mapped for all steps at once."""
        hidden, state = loop(self._step, self.reset, self._projected(x), state, starts)
        return self.out(torch.stack(hidden[since:]).flatten(2)), state

    def _projected(self, x: Tensor) -> Tensor:
        return self.project(x).unflatten(-1, (self.heads, -1))  # [..., heads, 4 d]

    def _step(self, projected: Tensor, state: SLSTMState) -> tuple[Tensor, SLSTMState]:
        """The update, for a projected input [B, heads, 4 d]: h [B, heads, d], and the state that holds it."""
        _, cell, normaliser, stabiliser = state
        candidate, take, forget, output_gate = self._logits(projected, state).chunk(4, dim=-1)  # each [B, heads, d]
        log_kept = stabiliser + (F.logsigmoid(forget) if self.forget == "sigmoid" else forget)
        log_kept = torch.where(normaliser == 0, -torch.inf, log_kept)  # an episode begins with nothing to keep
        stabiliser = torch.maximum(log_kept, take)
        input_gate, forget_gate = torch.exp(take - stabiliser), torch.exp(log_kept - stabiliser)
        cell = forget_gate * cell + input_gate * squash(candidate)
        normaliser = forget_gate * normaliser + input_gate
        hidden = output_gate.sigmoid() * cell / normaliser
        return hidden, SLSTMState(hidden, cell, normaliser, stabiliser)

    def _logits(self, projected: Tensor, state: SLSTMState) -> Tensor:
        """z̃, ĩ, f̃ and õ side by side [B, heads, 4 d]."""
        return projected + (state.hidden.transpose(0, 1) @ self.recurrent).transpose(0, 1)

    @full_precision
    def gates(self, x: Tensor, state: SLSTMState) -> dict[str, Tensor]:
        """The output gate, and the forget gate where it is a sigmoid; exponential gates have no upper bound."""
        _, _, forget, output_gate = self._logits(self._projected(x), state).sigmoid().chunk(4, dim=-1)
        gates = {"output_gate": output_gate.flatten(1)}  # [B, H]
        return {"forget_gate": forget.flatten(1), **gates} if self.forget == "sigmoid" else gates
