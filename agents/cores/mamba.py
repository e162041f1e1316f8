"""Mamba (Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces")."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .registry import register_core
from .scan import linear_scan, loop
from .short_conv import ShortConv


class MambaState(NamedTuple):
    memory: Tensor  # h [B, N, D]
    conv: Tensor  # inputs of the convolution before the present one [B, K - 1, D]


class Selection(NamedTuple):
    """What an input decides about the memory."""

    step_size: Tensor  # Δ [..., D]
    key: Tensor  # B [..., N]
    query: Tensor  # C [..., N]
    value: Tensor  # Δ u [..., D]


@register_core("mamba")
class MambaCore(MemoryCore):
    """A Mamba block (Gu and Dao 2023, section 3.4 and algorithm 2) without the norm and the residual around it. Each of
    D channels has a state of N numbers, which decay and are written as the input says:

        u_t = SiLU(Conv(W_u x)_t + b),  Δ_t = softplus(W_Δ W_r u_t + b_Δ),  B_t = W_B u_t,  C_t = W_C u_t,
        h_t[n, d] = exp(Δ_t[d] A[n, d]) h_{t-1}[n, d] + Δ_t[d] u_t[d] B_t[n],  A = -exp(log_A),
        y_t[d] = (Σ_n C_t[n] h_t[n, d] + D[d] u_t[d]) SiLU(W_z x_t)[d].

    A linear map follows where ``output_size`` is given. Good at selecting what to hold and at ignoring the rest, over
    long delays. Bad at parity and other state tracking: decays are positive and do not depend on the state.

    At first, A[n] = -n - 1, and Δ is from 0.001 to 0.1, both as in the paper.

    :param hidden_size: number of channels D; the natural output width
    :param memory_size: numbers N that each channel holds
    :param conv_size: number of steps K that the convolution sees
    :param rank: width between channels and their step sizes Δ; None: a sixteenth of the channels, rounded up
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 256,
        memory_size: Count = 16,
        conv_size: Count = 4,
        rank: Count | None = None,
    ) -> None:
        require_options(MambaCore, locals())
        width = hidden_size if output_size is None else output_size
        super().__init__(input_size, width, MambaState, ((memory_size, hidden_size), (conv_size - 1, hidden_size)))
        rank = math.ceil(hidden_size / 16) if rank is None else rank
        self.sizes = [rank, memory_size, memory_size]
        self.project = nn.Linear(input_size, 2 * hidden_size, bias=False)  # W_u, W_z
        self.conv = ShortConv(hidden_size, conv_size)
        self.select = nn.Linear(hidden_size, sum(self.sizes), bias=False)  # W_r, W_B, W_C
        self.step_size = nn.Linear(rank, hidden_size)  # W_Δ
        nn.init.uniform_(self.step_size.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():
            self.step_size.bias.copy_(initial_step_sizes(hidden_size))
        rates = torch.arange(1.0, memory_size + 1).unsqueeze(1).expand(memory_size, hidden_size)
        self.log_A = nn.Parameter(rates.log())
        self.D = nn.Parameter(torch.ones(hidden_size))
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        u, z = self.project(x).chunk(2, dim=-1)
        u, conv = self.conv.step(u, state.conv)
        u = F.silu(u)
        y, memory = self._step(self._selection(u), state.memory)
        return self._output(y, u, z), MambaState(memory, conv)

    def sequence(self, x: Tensor, state: MambaState, starts: Tensor, since: int) -> tuple[Tensor, MambaState]:
        u, z = self.project(x).chunk(2, dim=-1)
        u, conv = self.conv.sequence(u, state.conv, starts)
        u = F.silu(u)
        scan = self._at_once if x.is_cuda else self._one_by_one
        y, memory = scan(self._selection(u), state.memory, starts)
        return self._output(y[since:], u[since:], z[since:]), MambaState(memory, conv)

    def _one_by_one(self, selection: Selection, memory: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Read-outs [T, B, D], and the last memory. On a CPU the loop is fastest: the memories of all steps fit into no
        cache."""

        def reset(memory: Tensor, starts: Tensor) -> Tensor:
            return torch.where(starts.view(-1, 1, 1), 0, memory)

        steps = [Selection(*parts) for parts in zip(*selection, strict=True)]
        y, memory = loop(self._step, reset, steps, memory, starts)
        return torch.stack(y), memory

    def _at_once(self, selection: Selection, memory: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """The same, all steps at once."""
        memories = linear_scan(self._decay(selection), self._write(selection), memory, starts)  # [T, B, N, D]
        return self._read(selection, memories), memories[-1]

    def _step(self, selection: Selection, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The read-out [B, D], and the next memory."""
        memory = self._decay(selection) * memory + self._write(selection)  # [B, N, D]
        return self._read(selection, memory), memory

    def _selection(self, u: Tensor) -> Selection:
        low, key, query = self.select(u).split(self.sizes, dim=-1)
        step_size = F.softplus(self.step_size(low))
        return Selection(step_size, key, query, step_size * u)

    def _decay(self, selection: Selection) -> Tensor:
        return torch.exp(selection.step_size.unsqueeze(-2) * -self.log_A.exp())  # [..., N, D]

    def _write(self, selection: Selection) -> Tensor:
        return selection.key.unsqueeze(-1) * selection.value.unsqueeze(-2)  # [..., N, D]

    def _read(self, selection: Selection, memory: Tensor) -> Tensor:
        return (selection.query.unsqueeze(-2) @ memory).squeeze(-2)  # [..., D]

    def _output(self, y: Tensor, u: Tensor, z: Tensor) -> Tensor:
        return self.out((y + self.D * u) * F.silu(z))


def initial_step_sizes(count: int, low: float = 0.001, high: float = 0.1) -> Tensor:
    """Biases [count] whose softplus is log-uniform from ``low`` to ``high``."""
    step_size = torch.exp(torch.empty(count).uniform_(math.log(low), math.log(high)))
    return step_size + torch.log(-torch.expm1(-step_size))
