"""Parity: a state of one bit that every input may change."""

from __future__ import annotations

from typing import Annotated

import torch

from ..common.options import Count, Range, require_option, require_options
from . import draw
from .base import Batch, VaryingLengthTask
from .registry import register_task


@register_task("parity")
class Parity(VaryingLengthTask):
    """Is the number of ones odd? The answer comes with the last bit.

    A step is one fair bit, one-hot. The length is uniform from 1 to ``max_length``, one for each batch; the set
    ``test`` has the greatest and ``test_<long_length>`` measures generalisation to longer sequences (Delétang et al.
    2023; greatest lengths of Beck et al. 2024).

    The trivial level: without the last bit both answers are equally likely, whatever else is known.

    :param max_length: greatest length in training
    :param long_length: length of the set for generalisation
    """

    kind = "class"
    input_size = output_size = 2

    def __init__(self, max_length: Count = 40, long_length: Count = 256) -> None:
        require_options(Parity, locals())
        longer = Range(max_length, above=True, why="max_length")
        require_option("long_length", Annotated[int, longer], long_length)
        super().__init__(range(1, max_length + 1), (max_length, long_length))

    def sample(self, size: int, length: int, generator: torch.Generator) -> Batch:
        bits = draw.integers(2, (length, size), generator)
        return Batch(draw.one_hot(bits, 2), bits.sum(dim=0) % 2)

    def trivial_at(self, length: int) -> dict[str, float]:
        return {"guessing": 0.5}
