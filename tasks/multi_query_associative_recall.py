"""Multi-query associative recall (MQAR): how many pairs a memory holds."""

from __future__ import annotations

from typing import Annotated

import torch

from ..common.options import Count, Range, require_option, require_options
from . import draw
from .base import IGNORED, Batch, Task
from .registry import register_task


@register_task("multi_query_associative_recall")
class MultiQueryAssociativeRecall(Task):
    """Pairs of key and value; then the keys return one by one, each to be answered by its value.

    A step is one symbol, one-hot: the first half of the vocabulary are keys, the second half values. 2 · ``pairs``
    steps show key, value, key, value, ...; in the rest every key is shown once, in random order and at random steps,
    and its value is the answer at that step. All other steps are empty and not scored. Keys are distinct, and so are
    values (Arora et al. 2023, where positions follow a power law instead).

    The trivial level: a model that remembers the values but not their keys names one of them.

    :param pairs: number of pairs
    :param vocabulary: number of keys and values together
    :param length: number of steps, at least 3 · ``pairs``
    """

    kind = "classes"
    asks_while_answering = True

    def __init__(self, pairs: Count = 8, vocabulary: Count = 64, length: Count = 64) -> None:
        require_options(MultiQueryAssociativeRecall, locals())
        require_option("vocabulary", Annotated[int, Range(2 * pairs, why="twice pairs")], vocabulary)
        require_option("length", Annotated[int, Range(3 * pairs, why="three times pairs")], length)
        if vocabulary % 2:
            raise ValueError(f"vocabulary must be even, got {vocabulary}")
        self.pairs, self.input_size, self.output_size = pairs, vocabulary, vocabulary // 2
        self.answer_steps = length - 2 * pairs

    def trivial(self, split: str | None = None) -> dict[str, float]:
        return {"any value shown": 1 / self.pairs}

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        keys = draw.permutations(size, self.output_size, generator)[:, : self.pairs].T  # [K, B]
        values = draw.permutations(size, self.output_size, generator)[:, : self.pairs].T
        steps = draw.permutations(size, self.answer_steps, generator)[:, : self.pairs].T  # where each key is asked for
        symbols = torch.stack([keys, self.output_size + values], dim=1).flatten(0, 1)  # [K, 2, B] -> [2K, B]
        shown = draw.one_hot(symbols, self.input_size)
        columns = torch.arange(size, device=keys.device)
        questions = shown.new_zeros(self.answer_steps, size, self.input_size)
        questions[steps, columns, keys] = 1
        targets = torch.full((self.answer_steps, size), IGNORED, device=keys.device)
        targets[steps, columns] = values
        return Batch(torch.cat([shown, questions]), targets)
