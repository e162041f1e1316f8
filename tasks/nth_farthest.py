"""N-th farthest: relations between distances."""

from __future__ import annotations

from typing import Annotated

import torch

from ..common.options import Count, Range, require_options
from . import draw
from .base import Batch, Task
from .registry import register_task


@register_task("nth_farthest")
class NthFarthest(Task):
    """Which vector is the n-th farthest from vector m? The answer is its label, after the last vector.

    A step shows [vector | its label | n | m]: the vector uniform in [-1, 1), the other three one-hot over ``objects``,
    n and m the same at every step. Labels are a random permutation. n = 0 asks for the farthest vector and
    n = ``objects`` - 1 for m itself, whose distance is 0 (Santoro et al. 2018, section 4.1; distance ranks and the
    order of features as in the released code of Le et al. 2020).

    The trivial level: a model that ignores the vectors names m where n is the last rank, which is right, and one of the
    other labels elsewhere: 1/N + (N-1)/N · 1/(N-1) = 2/N.

    :param objects: number of vectors N, and of steps; the papers' is 8
    :param features: size of a vector; the papers' is 16
    """

    kind = "class"

    def __init__(self, objects: Annotated[int, Range(2)] = 8, features: Count = 16) -> None:
        require_options(NthFarthest, locals())
        self.objects, self.features = objects, features
        self.input_size, self.output_size = features + 3 * objects, objects

    def trivial(self, split: str | None = None) -> dict[str, float]:
        return {"ignoring the vectors": 2 / self.objects}

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        n_objects = self.objects
        vectors = draw.uniform(-1, 1, (n_objects, size, self.features), generator)  # [T, B, features]
        labels = draw.permutations(size, n_objects, generator).T  # [T, B]
        n, m = draw.integers(n_objects, (2, size), generator)
        query = vectors[labels.eq(m).long().argmax(dim=0), torch.arange(size, device=m.device)]  # [B, features]
        # The differences of m to itself are exact zeros, so that it ranks last.
        ranking = (vectors - query).square().sum(dim=2).argsort(dim=0, descending=True)  # [T, B]
        targets = labels.gather(0, ranking.gather(0, n[None]))[0]
        question = torch.cat([draw.one_hot(n, n_objects), draw.one_hot(m, n_objects)], dim=1)
        inputs = [vectors, draw.one_hot(labels, n_objects), question.expand(n_objects, -1, -1)]
        return Batch(torch.cat(inputs, dim=2), targets)
