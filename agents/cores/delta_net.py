"""DeltaNet (Schlag, Irie and Schmidhuber 2021; Yang et al. 2024): a memory of matrices, written by the delta rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .delta_scan import delta_scan, delta_step
from .registry import register_core
from .scan import unless_ruined
from .unit import unit_length


class DeltaNetState(NamedTuple):
    memory: Tensor  # S [B, H, k, v]


class Projection(NamedTuple):
    """What the input alone decides about a step, so that a whole sequence is projected at once."""

    query: Tensor  # [..., H, k], of length 1
    key: Tensor  # [..., H, k], of length 1
    value: Tensor  # [..., H, v]
    write: Tensor  # β [..., H]


@register_core("delta_net")
class DeltaNetCore(MemoryCore):
    """DeltaNet (Schlag, Irie and Schmidhuber 2021, "Linear Transformers Are Secretly Fast Weight Programmers",
    https://arxiv.org/abs/2102.11174): matrices S of H heads, in which a key's old value is replaced by a new one:

        S_t = S_{t-1} + β_t k_t (v_t - S_{t-1}ᵀ k_t)ᵀ,   y_t = S_tᵀ q_t,   β_t = σ(W_β x_t + b_β)

    Queries, keys and values are the SiLU of linear maps of the input, queries and keys of length 1 (Yang et al. 2024,
    https://arxiv.org/abs/2406.06484). Read-outs are normalised per head by their root mean square, and all heads are
    the output, followed by a linear map where ``output_size`` is given.

    Good at associative recall, and at correcting what is stored. It forgets only what it overwrites (see
    ``gated_delta_net``), and with positive eigenvalues alone it cannot track a parity.

    :param heads: number H of matrices
    :param key_size: width k of a head's queries and keys
    :param value_size: width v of a head's values; the natural output width is H * v
    :param eigenvalues: of what a step does to the memory along its key: positive, 1 - β in (0, 1), or signed, in
        (-1, 1), by β = 2 σ(W_β x + b_β) (Grazzi et al. 2025, https://arxiv.org/abs/2411.12537), which tracks a parity
    :raises ValueError: if a size is not a positive integer, or the kind of eigenvalues is unknown
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        heads: Count = 4,
        key_size: Count = 64,
        value_size: Count = 64,
        eigenvalues: Literal["positive", "signed"] = "positive",
    ) -> None:
        require_options(DeltaNetCore, locals())
        width = heads * value_size
        super().__init__(
            input_size, width if output_size is None else output_size, DeltaNetState, ((heads, key_size, value_size),)
        )
        self.sizes, self.largest_write = (key_size, key_size, value_size), 2 if eigenvalues == "signed" else 1
        self.qkv = nn.Linear(input_size, heads * sum(self.sizes), bias=False)
        self.write = nn.Linear(input_size, heads)
        self.norm = nn.RMSNorm(value_size, eps=1e-5)
        self.out = output_map(width, output_size)

    @full_precision
    def step(self, x: Tensor, state: DeltaNetState) -> tuple[Tensor, DeltaNetState]:
        query, key, value, write = self._project(x)
        read, memory = delta_step(query, key, value, write, None, state.memory)  # [B, H, v], [B, H, k, v]
        return self._output(read), DeltaNetState(memory)

    @unless_ruined
    def sequence(self, x: Tensor, state: DeltaNetState, starts: Tensor, since: int) -> tuple[Tensor, DeltaNetState]:
        reads, memory = delta_scan(*self._project(x), None, state.memory, starts)
        return self._output(reads[since:]), DeltaNetState(memory)

    @full_precision
    def gates(self, x: Tensor, state: DeltaNetState) -> dict[str, Tensor]:
        """σ(W_β x + b_β), of which β is twice as much where eigenvalues are signed."""
        return {"write_gate": self.write(x).sigmoid()}

    def _project(self, x: Tensor) -> Projection:
        qkv = F.silu(self.qkv(x)).unflatten(-1, (-1, sum(self.sizes)))  # [..., H, 2 k + v]
        query, key, value = qkv.split(self.sizes, dim=-1)
        return Projection(unit_length(query), unit_length(key), value, self.largest_write * self.write(x).sigmoid())

    def _output(self, read: Tensor) -> Tensor:
        """[..., H, v] -> [..., O]."""
        return self.out(self.norm(read).flatten(-2))
