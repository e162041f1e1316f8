"""RWKV-7 (Peng et al. 2025): a memory of matrices with a decay for each key channel and a generalised delta rule."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .delta_scan import generalised_delta_scan, generalised_delta_step
from .registry import register_core
from .scan import unless_ruined
from .unit import unit_length


class RWKV7State(NamedTuple):
    memory: Tensor  # S [B, H, k, k]: keys by values
    last_input: Tensor  # x_{t-1} [B, F]


class Projection(NamedTuple):
    """What the input and the one before it decide about a step, so that a whole sequence is projected at once."""

    receptance: Tensor  # r [..., H, k]
    key: Tensor  # k [..., H, k]
    value: Tensor  # v [..., H, k]
    erase: Tensor  # κ [..., H, k], of length 1
    take: Tensor  # a [..., H, k], in (0, 1)
    log_decay: Tensor  # log w [..., H, k], from -0.61 to 0
    gate: Tensor  # g [..., H * k]


@register_core("rwkv7")
class RWKV7Core(MemoryCore):
    """The time mixing of RWKV-7 (Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution",
    https://arxiv.org/abs/2503.14456): matrices S of H heads, which decay by channel, are erased along κ, and written:

        S_t = diag(w_t) S_{t-1} - (a_t ∘ κ_t) (S_{t-1}ᵀ κ_t)ᵀ + k_t v_tᵀ
        y_t = g_t ∘ (norm(S_tᵀ r_t) + (r_t · (ρ ∘ k_t)) v_t)

    With a mixture x̃ of the input and the one before it, for each of r, w, k, v, a and g its own: r and v are linear in
    x̃, w = exp(-e^-½ σ(low rank)), a = σ(low rank), κ is the key times a vector, of length 1, and k the key times 1 +
    (a - 1) ∘ another. The norm is that of each head (``torch.nn.GroupNorm``). All heads are the output, followed by a
    linear map where ``output_size`` is given. Two parts of a layer of RWKV are left out: the mixing of channels after
    the memory, in whose place ``ResidualCore`` has an MLP, and the residual from the values of the first layer.

    Good at recall and at replacing what a key holds. Its many small maps make it slower than ``gated_delta_net``.

    :param heads: number H of matrices
    :param head_size: width k of a head's keys and values; the natural output width is H * k
    :param rank: of the maps to w and a
    :param gate_rank: of the map to g
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        heads: Count = 4,
        head_size: Count = 64,
        rank: Count = 32,
        gate_rank: Count = 64,
    ) -> None:
        require_options(RWKV7Core, locals())
        width = heads * head_size
        shapes = ((heads, head_size, head_size), (input_size,))
        super().__init__(input_size, width if output_size is None else output_size, RWKV7State, shapes)
        self.heads = heads
        self.mix = nn.Parameter(torch.rand(6, input_size))  # how much of the input before, for r, w, k, v, a, g
        self.receptance, self.key, self.value = (nn.Linear(input_size, width, bias=False) for _ in range(3))
        self.decay_in, self.decay_out = nn.Linear(input_size, rank, bias=False), nn.Linear(rank, width)
        self.take_in, self.take_out = nn.Linear(input_size, rank, bias=False), nn.Linear(rank, width)
        self.gate_in, self.gate_out = nn.Linear(input_size, gate_rank, bias=False), nn.Linear(gate_rank, width, False)
        with torch.no_grad():
            self.decay_out.bias.copy_(torch.linspace(-6, -1, head_size).repeat(heads))  # w from 0.85 to 0.998
            self.take_out.bias.zero_()
        self.erase_scale, self.take_scale = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.bonus = nn.Parameter(torch.zeros(heads, head_size))  # ρ
        self.norm = nn.GroupNorm(heads, width, eps=64e-5)
        self.out = output_map(width, output_size)

    @full_precision
    def step(self, x: Tensor, state: RWKV7State) -> tuple[Tensor, RWKV7State]:
        projection = self._project(x, state.last_input)
        read, memory = generalised_delta_step(*projection[:6], state.memory)  # [B, H, k], [B, H, k, k]
        return self._output(read, projection), RWKV7State(memory, x)

    @unless_ruined
    def sequence(self, x: Tensor, state: RWKV7State, starts: Tensor, since: int) -> tuple[Tensor, RWKV7State]:
        last = torch.cat([state.last_input.unsqueeze(0), x[:-1]])
        projection = self._project(x, torch.where(starts.unsqueeze(2), 0, last))
        reads, memory = generalised_delta_scan(*projection[:6], state.memory, starts)
        late = Projection(*(part[since:] for part in projection))
        return self._output(reads[since:], late), RWKV7State(memory, x[-1])

    def _project(self, x: Tensor, last: Tensor) -> Projection:
        mixed = (torch.lerp(x, last, mix) for mix in self.mix)
        for_r, for_w, for_k, for_v, for_a, for_g = mixed
        log_decay = -math.exp(-0.5) * self.decay_out(self.decay_in(for_w).tanh()).sigmoid()
        take = self.take_out(self.take_in(for_a)).sigmoid()
        key = self.key(for_k)
        written = key * (1 + (take - 1) * self.take_scale)
        per_head = (self.receptance(for_r), written, self.value(for_v), key * self.erase_scale, take, log_decay)
        r, k, v, erase, take, log_decay = (part.unflatten(-1, (self.heads, -1)) for part in per_head)
        gate = self.gate_out(self.gate_in(for_g).sigmoid())
        return Projection(r, k, v, unit_length(erase), take, log_decay, gate)

    @full_precision
    def gates(self, x: Tensor, state: RWKV7State) -> dict[str, Tensor]:
        projection = self._project(x, state.last_input)
        return {"write_gate": projection.take, "decay": projection.log_decay.exp()}

    def _output(self, read: Tensor, projection: Projection) -> Tensor:
        """[..., H, k] -> [..., O]."""
        flat = read.flatten(-2)  # [..., H * k]
        normal = self.norm(flat.flatten(0, -2)).view_as(flat)
        agreement = (projection.receptance * projection.key * self.bonus).sum(-1, keepdim=True)  # [..., H, 1]
        return self.out(projection.gate * (normal + (agreement * projection.value).flatten(-2)))
