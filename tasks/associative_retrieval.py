"""Associative retrieval: memory of pairs."""

from __future__ import annotations

from math import factorial
from typing import Annotated

import numpy as np
import torch

from ..common.options import Range, require_options
from . import draw
from .base import Batch, Task
from .registry import register_task

LETTERS, DIGITS = 26, 10
LONGEST = 2 * LETTERS + 2


@register_task("associative_retrieval")
class AssociativeRetrieval(Task):
    """Distinct letters, each followed by a digit, then "??" and one of the letters again: which digit followed it?

    For example ``c9k8j3f1??c`` -> 9. A step is one symbol, one-hot: digits 0-9, letters 10-35, "?" 36. There are
    K = ``length`` / 2 - 1 pairs and 2K + 3 steps; digits are drawn independently (Ba et al. 2016, section 4.1; lengths
    of Zhang & Zhou 2017 and Le et al. 2020, whose released code has K = 24 for length 50). Training repeats a fixed set
    of 100 000 samples.

    The trivial level: a model that remembers which digits were shown, but not where, names the most frequent one. It is
    right for the expected greatest count of K draws among 10 digits, divided by K.

    :param length: 30 and 50 in the papers; even
    """

    kind = "class"
    fixed = True
    split_sizes = {"train": 100_000, "valid": 10_000, "test": 20_000}  # noqa: RUF012
    input_size, output_size = DIGITS + LETTERS + 1, DIGITS

    def __init__(self, length: Annotated[int, Range(4, LONGEST)] = 30) -> None:
        require_options(AssociativeRetrieval, locals())
        if length % 2:
            raise ValueError(f"length must be even, got {length}")
        self.pairs = length // 2 - 1

    def trivial(self, split: str | None = None) -> dict[str, float]:
        return {"most frequent digit": greatest_count(self.pairs, DIGITS) / self.pairs}

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        return self._draw(size, generator).rows(slice(None))

    def _draw_split(self, name: str, generator: torch.Generator) -> Batch:
        return self._draw(self.split_sizes[name], generator)

    def _draw(self, size: int, generator: torch.Generator) -> Batch:
        """``inputs`` are bool [T, B, 37]: a quarter of the memory of float32, 200 MB for the longest training set."""
        letters = draw.permutations(size, LETTERS, generator)[:, : self.pairs]  # [B, K]
        digits = draw.integers(DIGITS, (size, self.pairs), generator)
        asked = draw.integers(self.pairs, (size, 1), generator)
        symbols = torch.full((size, 2 * self.pairs + 3), DIGITS + LETTERS, device=generator.device)  # all "?"
        symbols[:, 0:-3:2] = DIGITS + letters
        symbols[:, 1:-3:2] = digits
        symbols[:, -1:] = DIGITS + letters.gather(1, asked)
        inputs = symbols.T[:, :, None] == torch.arange(self.input_size, device=generator.device)
        return Batch(inputs, digits.gather(1, asked)[:, 0])


def greatest_count(draws: int, classes: int) -> float:
    """Expected count of the most frequent of ``classes`` equally likely classes in ``draws`` draws.

    P(no count above m) = draws! / classes^draws · [z^draws] (sum_{j <= m} z^j / j!)^classes.
    """
    expected = 0.0
    for m in range(draws):
        one_class = [1 / factorial(j) for j in range(m + 1)]
        all_classes = np.polynomial.polynomial.polypow(one_class, classes)
        within = all_classes[draws] * factorial(draws) / classes**draws if draws < len(all_classes) else 0.0
        expected += 1 - within  # E[max] = sum_m P(max > m)
    return float(expected)
