"""Copy: memory of a sequence, without relations."""

from __future__ import annotations

import torch

from ..common.options import Count, require_options
from . import draw
from .base import Batch, VaryingLengthTask
from .registry import register_task


@register_task("copy")
class Copy(VaryingLengthTask):
    """Repeat a sequence of random bit vectors in its order.

    Steps: a start flag, L vectors, an end flag, L empty steps in which the vectors are answered. The flags have two
    channels of their own behind those of the bits (Graves et al. 2014; the form is that of the released code of
    Le et al. 2020). L is uniform from 1 to ``max_length``, one for each batch; the fixed sets have the greatest.

    The trivial level: any answer that knows nothing of the bits has half of them wrong.

    :param max_length: greatest L; the paper's is 20
    :param bits: size of a vector; the paper's is 32
    """

    kind = "bits"
    metric = "bit_errors"
    higher_is_better = False

    def __init__(self, max_length: Count = 20, bits: Count = 32) -> None:
        require_options(Copy, locals())
        super().__init__(range(1, max_length + 1), (max_length,))
        self.bits = bits
        self.input_size, self.output_size, self.answer_steps = bits + 2, bits, max_length

    def sample(self, size: int, length: int, generator: torch.Generator) -> Batch:
        vectors = draw.bits((length, size, self.bits), generator)
        inputs = vectors.new_zeros(2 * length + 2, size, self.input_size)
        inputs[0, :, self.bits] = 1
        inputs[1 : length + 1, :, : self.bits] = vectors
        inputs[length + 1, :, self.bits + 1] = 1
        return Batch(inputs, vectors)

    def trivial_at(self, length: int) -> dict[str, float]:
        return {"guessing": self.bits * length / 2}
