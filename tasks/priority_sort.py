"""Priority sort: relations between the priorities of remembered items."""

from __future__ import annotations

from typing import Annotated

import torch

from ..common.options import Count, Range, require_option, require_options
from . import draw
from .base import Batch, Task
from .registry import register_task


@register_task("priority_sort")
class PrioritySort(Task):
    """Name the bit vectors of highest priority, the highest first.

    A step shows [vector | priority | 0], the priority uniform in [-1, 1); then come as many empty steps as vectors are
    asked for. The last channel is always 0 and there are no flags, as in the released code of Le et al. 2020 (the task
    is that of Graves et al. 2014, section 4.5).

    The trivial level: any answer that knows nothing of the bits has half of them wrong.

    :param items: number of vectors; the papers' is 20
    :param answers: how many of them to name; the papers' is 16
    :param bits: size of a vector; 32 in Le et al.
    """

    kind = "bits"
    metric = "bit_errors"
    higher_is_better = False

    def __init__(self, items: Count = 20, answers: Count = 16, bits: Count = 32) -> None:
        require_options(PrioritySort, locals())
        require_option("answers", Annotated[int, Range(1, items, why="items")], answers)
        self.items, self.answer_steps, self.bits = items, answers, bits
        self.input_size, self.output_size = bits + 2, bits

    def trivial(self, split: str | None = None) -> dict[str, float]:
        return {"guessing": self.bits * self.answer_steps / 2}

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        vectors = draw.bits((self.items, size, self.bits), generator)
        priority = draw.uniform(-1, 1, (self.items, size), generator)
        inputs = vectors.new_zeros(self.items + self.answer_steps, size, self.input_size)
        inputs[: self.items, :, : self.bits] = vectors
        inputs[: self.items, :, self.bits] = priority
        # Of equal priorities, one in millions of pairs, the earlier comes first.
        order = priority.argsort(dim=0, descending=True, stable=True)[: self.answer_steps]  # [S, B]
        return Batch(inputs, vectors[order, torch.arange(size, device=order.device)])
