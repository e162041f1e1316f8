"""The linear recurrent unit (Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences")."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...common.options import Count, Fraction, Positive, require_options
from .core import MemoryCore, full_precision
from .registry import register_core
from .scan import linear_scan


class LRUState(NamedTuple):
    real: Tensor  # Re h [B, N]
    imaginary: Tensor  # Im h [B, N]


@register_core("lru")
class LRUCore(MemoryCore):
    """A linear recurrence with complex, constant decays (Orvieto et al. 2023, sections 3.2 to 3.4):

        h_t = λ ∘ h_{t-1} + exp(log γ) ∘ B x_t,  y_t = Re(C h_t) + D x_t,
        λ = exp(-exp(ν) + i exp(θ)),

    where ν keeps |λ| below 1. At first, λ is uniform on the ring from ``r_min`` to ``r_max``, up to the angle
    ``max_phase``, and γ = sqrt(1 - |λ|²), so that hidden states have the size of inputs.

    Good at long delays and at when something was, and fast. Bad at choosing what to hold: nothing is gated, so every
    input is written, and only the next layer can tell what matters. To be stacked in residual blocks.

    :param hidden_size: number of complex hidden units N; the natural output width
    :param r_min: the least |λ| at first
    :param r_max: the greatest |λ| at first
    :param max_phase: the greatest angle of λ at first, in radians: up to 2 π
    :raises ValueError: if a size is not a positive integer, or ``r_min`` is not below ``r_max``
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 256,
        r_min: Fraction = 0.9,
        r_max: Fraction = 0.999,
        max_phase: Positive = 2 * math.pi,
    ) -> None:
        require_options(LRUCore, locals())
        if not r_min < r_max:
            raise ValueError(f"r_min must be below r_max {r_max}, got {r_min}")
        width = hidden_size if output_size is None else output_size
        super().__init__(input_size, width, LRUState, ((hidden_size,), (hidden_size,)))
        # No number below is zero, nor is 1 - |λ|²: all have a logarithm.
        square = torch.empty(hidden_size).uniform_(r_min**2, r_max**2).clamp(1e-6, 1 - 1e-6)  # |λ|²
        self.nu = nn.Parameter(torch.log(-0.5 * torch.log(square)))
        self.theta = nn.Parameter(torch.log(max_phase * (1 - torch.rand(hidden_size))))
        self.log_gamma = nn.Parameter(0.5 * torch.log(1 - square))
        # Complex matrices by their real parts: real and imaginary part of a hidden unit lie side by side.
        self.B = nn.Parameter(torch.randn(2 * hidden_size, input_size) * (2 * input_size) ** -0.5)
        self.C = nn.Parameter(torch.randn(width, 2 * hidden_size) * hidden_size**-0.5)  # Re C and -Im C
        self.D = nn.Parameter(torch.randn(width, input_size) * input_size**-0.5)

    @full_precision
    def step(self, x: Tensor, state: LRUState) -> tuple[Tensor, LRUState]:
        hidden = self._decay() * torch.complex(*state) + self._written(x)
        return self._read(hidden, x), LRUState(hidden.real, hidden.imag)

    def sequence(self, x: Tensor, state: LRUState, starts: Tensor, since: int) -> tuple[Tensor, LRUState]:
        hidden = linear_scan(self._decay(), self._written(x), torch.complex(*state), starts)  # [T, B, N]
        return self._read(hidden[since:], x[since:]), LRUState(hidden[-1].real, hidden[-1].imag)

    def _decay(self) -> Tensor:
        """λ, complex [N]."""
        return torch.polar(torch.exp(-self.nu.exp()), self.theta.exp())

    def _written(self, x: Tensor) -> Tensor:
        """exp(log γ) ∘ B x, complex: x [..., F] -> [..., N]."""
        return torch.view_as_complex(nn.functional.linear(x, self.B).unflatten(-1, (-1, 2))) * self.log_gamma.exp()

    def _read(self, hidden: Tensor, x: Tensor) -> Tensor:
        """Re(C h) + D x [..., O]."""
        parts = torch.view_as_real(hidden).flatten(-2)  # [..., 2 N]
        return nn.functional.linear(parts, self.C) + nn.functional.linear(x, self.D)
