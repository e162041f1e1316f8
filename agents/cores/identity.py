"""No memory at all: the baseline that every memory task must defeat."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from .base import MemoryCore, first_output, full_precision
from .registry import register_core


class IdentityState(NamedTuple):
    nothing: Tensor  # [B, 1], a zero, so that even this state knows its batch size


@register_core("identity")
class IdentityCore(MemoryCore):
    """y_t = x_t, or a linear map of it where ``output_size`` is given."""

    def __init__(self, input_size: int, output_size: int | None = None) -> None:
        super().__init__(input_size, input_size if output_size is None else output_size, IdentityState, ((1,),))
        self.out = nn.Identity() if output_size is None else nn.Linear(input_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: IdentityState) -> tuple[Tensor, IdentityState]:
        return self.out(x), state

    @full_precision
    def forward(self, x: Tensor, state: IdentityState, starts: Tensor, since: int = 0) -> tuple[Tensor, IdentityState]:
        return self.out(x[first_output(since, len(x)) :]), self.reset(state, starts.any(dim=0))
