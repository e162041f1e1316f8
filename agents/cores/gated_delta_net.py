"""Gated DeltaNet (Yang, Kautz and Hatamizadeh 2025): the delta rule on a memory that also decays."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .delta_scan import delta_scan, delta_step
from .mamba import initial_step_sizes
from .registry import register_core
from .scan import unless_ruined
from .short_conv import ShortConv
from .unit import unit_length


class GatedDeltaNetState(NamedTuple):
    memory: Tensor  # S [B, H, k, v]
    conv: Tensor  # the inputs of the convolution before the present one [B, K - 1, H * (2 k + v)]


class Projection(NamedTuple):
    """What the input alone decides about a step, but for the convolution, so that a whole sequence is projected at
    once."""

    qkv: Tensor  # before the convolution [..., H * (2 k + v)]
    write: Tensor  # β [..., H]
    log_decay: Tensor  # log α [..., H]
    gate: Tensor  # of the output [..., H, v]


@register_core("gated_delta_net")
class GatedDeltaNetCore(MemoryCore):
    """Gated DeltaNet (Yang, Kautz and Hatamizadeh 2025, "Gated Delta Networks: Improving Mamba2 with Delta Rule",
    https://arxiv.org/abs/2412.06464): matrices S of H heads, which decay, and in which a key's old value is replaced by
    a new one:

        S_t = α_t S_{t-1} + β_t k_t (v_t - α_t S_{t-1}ᵀ k_t)ᵀ,   y_t = SiLU(W_g x_t) ∘ norm(S_tᵀ q_t)
        α_t = exp(-A softplus(W_α x_t + b_α)),   β_t = σ(W_β x_t + b_β)

    Queries, keys and values are the SiLU of a short convolution over linear maps of the input; queries and keys have
    length 1. The norm is by the root mean square of a head. All heads are the output, followed by a linear map where
    ``output_size`` is given.

    Good at associative recall and at forgetting what is over, a first choice among the memories that are fast over
    sequences. Bad at tracking states that its inputs permute, unless its eigenvalues are signed: it then tracks swaps
    and parity, but one layer does not count modulo 3.

    :param heads: number H of matrices
    :param key_size: width k of a head's queries and keys
    :param value_size: width v of a head's values; the natural output width is H * v
    :param conv_size: number of steps K that the convolution sees, the present one included
    :param eigenvalues: of what a step does to the memory along its key, but for the decay: positive, 1 - β in (0, 1),
        or signed, in (-1, 1), by β = 2 σ(W_β x + b_β) (Grazzi et al. 2025, https://arxiv.org/abs/2411.12537)
    :raises ValueError: if a size is not a positive integer, or the kind of eigenvalues is unknown
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        heads: Count = 4,
        key_size: Count = 64,
        value_size: Count = 64,
        conv_size: Count = 4,
        eigenvalues: Literal["positive", "signed"] = "positive",
    ) -> None:
        require_options(GatedDeltaNetCore, locals())
        sizes = (key_size, key_size, value_size)
        width, channels = heads * value_size, heads * sum(sizes)
        super().__init__(
            input_size,
            width if output_size is None else output_size,
            GatedDeltaNetState,
            ((heads, key_size, value_size), (conv_size - 1, channels)),
        )
        self.sizes, self.largest_write = sizes, 2 if eigenvalues == "signed" else 1
        self.qkv = nn.Linear(input_size, channels, bias=False)
        self.conv = ShortConv(channels, conv_size, bias=False)
        self.write = nn.Linear(input_size, heads)
        self.step_size = nn.Linear(input_size, heads)  # W_α, b_α
        self.log_A = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())  # as in Mamba-2, and so are step sizes
        with torch.no_grad():
            self.step_size.bias.copy_(initial_step_sizes(heads))
        self.gate = nn.Linear(input_size, width, bias=False)
        self.norm = nn.RMSNorm(value_size, eps=1e-5)
        self.out = output_map(width, output_size)

    @full_precision
    def step(self, x: Tensor, state: GatedDeltaNetState) -> tuple[Tensor, GatedDeltaNetState]:
        projection = self._project(x)
        qkv, conv = self.conv.step(projection.qkv, state.conv)
        query, key, value = self._query_key_value(qkv)  # [B, H, k], [B, H, k], [B, H, v]
        read, memory = delta_step(query, key, value, projection.write, projection.log_decay, state.memory)
        return self._output(read, projection.gate), GatedDeltaNetState(memory, conv)

    @unless_ruined
    def sequence(
        self, x: Tensor, state: GatedDeltaNetState, starts: Tensor, since: int
    ) -> tuple[Tensor, GatedDeltaNetState]:
        projection = self._project(x)
        qkv, conv = self.conv.sequence(projection.qkv, state.conv, starts)
        parts = (*self._query_key_value(qkv), projection.write, projection.log_decay)
        reads, memory = delta_scan(*parts, state.memory, starts)
        return self._output(reads[since:], projection.gate[since:]), GatedDeltaNetState(memory, conv)

    @full_precision
    def gates(self, x: Tensor, state: GatedDeltaNetState) -> dict[str, Tensor]:
        """σ(W_β x + b_β), of which β is twice as much where eigenvalues are signed, and α."""
        projection = self._project(x)
        return {"write_gate": projection.write / self.largest_write, "decay": projection.log_decay.exp()}

    def _project(self, x: Tensor) -> Projection:
        log_decay = -self.log_A.exp() * F.softplus(self.step_size(x))
        gate = F.silu(self.gate(x)).unflatten(-1, (-1, self.sizes[2]))
        return Projection(self.qkv(x), self.largest_write * self.write(x).sigmoid(), log_decay, gate)

    def _query_key_value(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Out of the convolution [..., H * (2 k + v)] -> [..., H, k], [..., H, k], [..., H, v]."""
        query, key, value = F.silu(qkv).unflatten(-1, (-1, sum(self.sizes))).split(self.sizes, dim=-1)
        return unit_length(query), unit_length(key), value

    def _output(self, read: Tensor, gate: Tensor) -> Tensor:
        """[..., H, v] -> [..., O]."""
        return self.out((gate * self.norm(read)).flatten(-2))
