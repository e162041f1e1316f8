"""Relational associative recall (RAR): recall by relation rather than by equality."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from typing import Literal

import torch
from torch import Tensor

from ..common.options import Count, require_options
from . import draw
from .base import Batch, VaryingLengthTask
from .registry import register_task

Variant = Literal["as_executed", "as_described"]


@register_task("relational_associative_recall")
class RelationalAssociativeRecall(VaryingLengthTask):
    """Recall the item farthest from, or closest to, the last one shown.

    An item is a list of L random bit vectors. Steps: each item behind a step with the item flag; then the query, which
    is one of the items again, between two steps with the query flag; then L empty steps in which the item farthest from
    the query is answered where the last bit of the query is 1, and the closest other item where it is 0. The distance
    is the Euclidean one over all bits; of equally distant items the earlier counts. The flags have two channels
    of their own behind those of the bits.

    The two variants come from Le et al. 2020, whose paper gives no numbers of items. Their released code swaps the two
    arguments "number of items" and "length of an item", so what was trained differs from what is set:

    * ``as_executed``: 3 items; L uniform from 2 to 5; the query is one of the first two items, in training the same one
      for the whole batch, in the fixed sets drawn for each sample. This is the task of the published curves.
    * ``as_described``: 2 to 5 items, uniform; L = 3; the query is any item, drawn for each sample.

    The varying quantity (L, or the number of items) is drawn for each batch. It is the "length" of the fixed sets, of
    which there is one for each value: ``test`` for 5, ``test_2`` to ``test_4``; the published curves are means over
    all four.

    The trivial levels are of models that recall every bit of the k other items but never compare whole items.
    "Cannot choose" answers each bit by their majority: a bit that is 1 in c of k items is then wrong for min(c, k - c)
    of the k possible targets, and c is binomial. "Bit by bit" breaks a tie by the same bit of the query, taken as it is
    where the closest item is asked for and inverted where the farthest is, as that makes each bit a little likelier.
    Measured on drawn samples.

    :param variant: ``as_executed`` or ``as_described``
    :param bits: size of a vector; the paper's is 32
    """

    kind = "bits"
    metric = "bit_errors"
    higher_is_better = False

    def __init__(self, variant: Variant = "as_executed", bits: Count = 32) -> None:
        require_options(RelationalAssociativeRecall, locals())
        super().__init__(range(2, 6), (5, 4, 3, 2))
        self.variant, self.bits = variant, bits
        self.input_size, self.output_size = bits + 2, bits
        self.answer_steps = 5 if variant == "as_executed" else 3
        self._bit_by_bit: dict[int, float] = {}  # of each length

    def sample(self, size: int, length: int, generator: torch.Generator) -> Batch:
        places = () if self.variant == "as_executed" else (size,)
        return self._sample(length, self._draw_query(length, places, generator).expand(size), generator)

    def _draw_split(self, name: str, generator: torch.Generator) -> Batch:
        """With queries at all places, where a single batch as executed has but one."""
        length = self._split_lengths[name]
        return self._sample(length, self._draw_query(length, (self.split_sizes[name],), generator), generator)

    def _sample(self, length: int, query: Tensor, generator: torch.Generator) -> Batch:
        items, asked = self._draw_items(length, query, generator)
        return Batch(self._inputs(items, asked), self._answer(items, asked, query))

    def _draw_query(self, length: int, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Which item is the query, int64 of that size."""
        return draw.integers(2 if self.variant == "as_executed" else length, size, generator)

    def _draw_items(self, length: int, query: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The items [N, L, B, bits], and of each sample the one at ``query`` [B], as [L, B, bits]."""
        n_items, item_length = (3, length) if self.variant == "as_executed" else (length, 3)
        items = draw.bits((n_items, item_length, len(query), self.bits), generator)
        columns = torch.arange(len(query), device=query.device)
        return items, items[query, :, columns].transpose(0, 1)

    def _inputs(self, items: Tensor, asked: Tensor) -> Tensor:
        n_items, length, size, bits = items.shape
        blocks = items.new_zeros(n_items + 1, length + 1, size, bits + 2)  # the items and the query, behind their flags
        blocks[:-1, 0, :, bits] = 1
        blocks[-1, 0, :, bits + 1] = 1
        blocks[:, 1:, :, :bits] = torch.cat([items, asked[None]])
        closing = blocks.new_zeros(1 + length, size, bits + 2)  # the second query flag and the empty steps
        closing[0, :, bits + 1] = 1
        return torch.cat([blocks.flatten(0, 1), closing])

    @staticmethod
    def _answer(items: Tensor, asked: Tensor, query: Tensor) -> Tensor:
        n_items, length, size, bits = items.shape
        distance = (items != asked).sum(dim=(1, 3))  # [N, B], the square of the Euclidean one
        farthest = asked[-1, :, -1] == 1  # [B]
        closeness = torch.where(farthest, -distance, distance)
        order = torch.arange(n_items, device=query.device)[:, None]
        closeness = closeness.masked_fill(order == query, length * bits + 1)
        target = (closeness * n_items + order).argmin(dim=0)  # the earlier of equals
        return items[target, :, torch.arange(size, device=query.device)].transpose(0, 1)

    def trivial_at(self, length: int) -> dict[str, float]:
        others, item_length = (2, length) if self.variant == "as_executed" else (length - 1, 3)
        wrong = Fraction(sum(comb(others, c) * min(c, others - c) for c in range(others + 1)), others * 2**others)
        if length not in self._bit_by_bit:
            self._bit_by_bit[length] = self._play_bit_by_bit(length)
        return {"cannot choose": float(wrong * item_length * self.bits), "bit by bit": self._bit_by_bit[length]}

    def _play_bit_by_bit(self, length: int) -> float:
        generator = torch.Generator().manual_seed(length)
        query = self._draw_query(length, (4000,), generator)
        items, asked = self._draw_items(length, query, generator)
        excess = 2 * (items.sum(dim=0) - asked) - (len(items) - 1)  # of ones among the other items [L, B, bits]
        farthest = asked[-1, :, -1:] == 1  # [B, 1]
        guess = torch.where(excess == 0, (asked == 1) != farthest, excess > 0)
        return float((guess != self._answer(items, asked, query)).sum(dim=(0, 2)).float().mean())
