"""mLSTM: an LSTM whose cell is a matrix, with exponential input gates (Beck et al. 2024)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import full_precision
from .linear_attention import MatrixCore, outer, recall
from .registry import register_core
from .scan import log_matrix_scan, unless_ruined


class MLSTMState(NamedTuple):
    memory: Tensor  # [B, H, k, v], C exp(-m)
    normaliser: Tensor  # [B, H, k], n exp(-m)
    stabiliser: Tensor  # [B, H], m: the logarithm of what memory and normaliser are divided by


@register_core("mlstm")
class MLSTMCore(MatrixCore):
    """mLSTM (Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory", equations 19 to 27), for each head:

        C_t = f_t C_{t-1} + i_t k_t v_tᵀ,   n_t = f_t n_{t-1} + i_t k_t,
        h_t = o_t ∘ LN(C_tᵀ q_t / max(|n_tᵀ q_t|, 1)),
        i_t = exp(w_i x_t + b_i),   f_t = σ(w_f x_t + b_f),   o_t = σ(W_o x_t + b_o)

    with keys divided by √k. Memory and normaliser are kept divided by exp(m_t), where m_t = max(log f_t + m_{t-1},
    log i_t), so that nothing overflows; outputs do not depend on it. LN normalises each head; it is part of the paper's
    block around these equations, and without it outputs become large where nᵀ q happens to be small. The rest of the
    block (convolution, projections, residual) is left to ``ResidualCore`` or to the policy.

    Good at storing what matters at once, over anything stored before, and at keeping it; one layer cannot track a state
    such as parity, since what it writes does not depend on what it remembers.

    :param normalised: whether the read-outs of each head go through LN
    """

    state_type = MLSTMState

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        heads: Count = 2,
        key_size: Count = 128,
        value_size: Count = 128,
        normalised: bool = True,
    ) -> None:
        require_options(MLSTMCore, locals())
        super().__init__(input_size, output_size, heads, key_size, value_size)
        self.norm: nn.Module = nn.LayerNorm(value_size) if normalised else nn.Identity()
        self.input_gate, self.forget_gate = nn.Linear(input_size, heads), nn.Linear(input_size, heads)
        self.output_gate = nn.Linear(input_size, heads * value_size)
        # Heads that remember for 20 to 400 steps, as in the released code, where the weights of the input gate start at
        # zero too, and its biases near it.
        nn.init.zeros_(self.forget_gate.weight)
        with torch.no_grad():
            self.forget_gate.bias.copy_(torch.linspace(3.0, 6.0, heads))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = super().project(x)
        return query, key / math.sqrt(self.key_size), value

    @full_precision
    def step(self, x: Tensor, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
        query, key, value = self.project(x)
        log_write, log_decay = self.input_gate(x), F.logsigmoid(self.forget_gate(x))  # [B, H]
        stabiliser = torch.maximum(log_decay + state.stabiliser, log_write)
        write = (log_write - stabiliser).exp().unsqueeze(-1)  # [B, H, 1]
        decay = (log_decay + state.stabiliser - stabiliser).exp().unsqueeze(-1)
        memory = decay.unsqueeze(-1) * state.memory + outer(write * key, value)  # [B, H, k, v]
        normaliser = decay * state.normaliser + write * key  # [B, H, k]
        read = scaled(recall(memory, query), (normaliser * query).sum(-1), stabiliser)  # [B, H, v]
        return self.output(x, read), MLSTMState(memory, normaliser, stabiliser)

    @unless_ruined
    def sequence(self, x: Tensor, state: MLSTMState, starts: Tensor, since: int) -> tuple[Tensor, MLSTMState]:
        query, key, value = self.project(x)
        # The normaliser is one more column of the memory, into which every step writes a value of 1.
        joint = torch.cat([state.memory, state.normaliser.unsqueeze(-1)], dim=-1)  # [B, H, k, v + 1]
        read, stabilisers, joint, stabiliser = log_matrix_scan(
            query,
            key,
            F.pad(value, (0, 1), value=1.0),
            self.input_gate(x),
            F.logsigmoid(self.forget_gate(x)),
            joint,
            state.stabiliser,
            starts,
        )
        read = scaled(read[since:, ..., :-1], read[since:, ..., -1], stabilisers[since:])  # [T, B, H, v]
        return self.output(x[since:], read), MLSTMState(joint[..., :-1], joint[..., -1], stabiliser)

    def output(self, x: Tensor, read: Tensor) -> Tensor:
        """x [..., F], read-outs [..., H, v] -> y [..., O]"""
        return self.out(self.output_gate(x).sigmoid() * self.norm(read).flatten(-2))

    @full_precision
    def gates(self, x: Tensor, state: MLSTMState) -> dict[str, Tensor]:
        return {"forget_gate": self.forget_gate(x).sigmoid(), "output_gate": self.output_gate(x).sigmoid()}


def scaled(read: Tensor, normaliser: Tensor, stabiliser: Tensor) -> Tensor:
    """Cᵀ q [..., H, v] over max(|nᵀ q|, 1) [..., H], where both are divided by exp(m), and so is the 1, as far as
    float32 can hold it."""
    return read / torch.maximum(normaliser.abs(), (-stabiliser).clamp(max=80.0).exp()).unsqueeze(-1)
