"""No memory at all: the baseline that every memory task must defeat."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .registry import register_core


class IdentityState(NamedTuple):
    nothing: Tensor  # [B, 1], a zero, so that even this state knows its batch size


@register_core("identity")
class IdentityCore(MemoryCore):
    """y_t = x_t, or a linear map of it where ``output_size`` is given."""

    def __init__(self, input_size: Count, output_size: Count | None = None) -> None:
        require_options(IdentityCore, locals())
        super().__init__(input_size, input_size if output_size is None else output_size, IdentityState, ((1,),))
        self.out = output_map(input_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: IdentityState) -> tuple[Tensor, IdentityState]:
        return self.out(x), state

    def sequence(self, x: Tensor, state: IdentityState, starts: Tensor, since: int) -> tuple[Tensor, IdentityState]:
        return self.out(x[since:]), self.reset(state, starts.any(dim=0))
