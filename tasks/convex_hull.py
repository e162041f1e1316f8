"""Convex hull: which points have all others on one side?"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from ..common.options import Range, require_options
from . import draw
from .base import IGNORED, Batch, VaryingLengthTask
from .points import GRID, classes, cross, labelled
from .registry import register_task

MAX_POINTS = 50  # time grows as N³
TRIPLES = 2**24  # of points that are compared at once
Order = Literal["counterclockwise", "coordinates"]


@register_task("convex_hull")
class ConvexHull(VaryingLengthTask):
    """Name the corners of the convex hull of N uniform points of the unit square by their labels, then the end.

    ``relmem.tasks.points`` describes the encoding. N is uniform from 5 to ``max_points``, one for each batch; the set
    ``test`` has N = 10, or ``max_points`` if that is less, and ``test_5`` N = 5 (Le et al. 2020, appendix H). Of the
    order of the answer the paper says "sorted by coordinates", while its data, from Vinyals et al. 2015, begin with the
    corner that comes first in the input and go on counterclockwise; the latter is the default.

    The trivial level: a model that ignores coordinates names at each step what is right there most often, be it the
    first, second, ... point of the input or the end. Chosen on drawn samples, and measured on others.

    :param max_points: greatest N; the paper's is 20
    :param order: ``counterclockwise`` from the first corner in the input, or ``coordinates``: by x, then y
    """

    kind = "classes"

    def __init__(
        self, max_points: Annotated[int, Range(5, MAX_POINTS)] = 20, order: Order = "counterclockwise"
    ) -> None:
        require_options(ConvexHull, locals())
        super().__init__(range(5, max_points + 1), (min(10, max_points), 5) if max_points > 5 else (5,))
        self.max_points, self.order = max_points, order
        self.output_size = classes(max_points)
        self.input_size, self.answer_steps = 2 + self.output_size, max_points + 1
        self._blind: dict[int, float] = {}  # the trivial level for each N

    def sample(self, size: int, length: int, generator: torch.Generator) -> Batch:
        grid = draw.integers(GRID, (size, length, 2), generator)
        successor, corner = convex_hull(grid)
        order = walk(successor, corner) if self.order == "counterclockwise" else by_coordinates(grid, corner)
        return labelled(grid, order, corner.sum(dim=1), self.max_points, generator)

    def trivial_at(self, length: int) -> dict[str, float]:
        if length not in self._blind:
            batch = self.sample(3000, length, torch.Generator().manual_seed(length))
            labels = batch.inputs[:length, :, 3:].argmax(dim=2) + 1  # [N, B], behind x, y and class 0
            answers = torch.cat([labels, torch.full_like(labels[:1], self.output_size - 1)])  # [N + 1, B]
            chosen, measured = (answers[:, None] == batch.targets).split((1000, 2000), dim=2)  # [N + 1, S, ...]
            best = chosen.sum(dim=2).argmax(dim=0)  # [S]
            right = measured.sum(dim=2).gather(0, best[None]).sum()
            self._blind[length] = float(right / (batch.targets[:, 1000:] != IGNORED).sum())
        return {"ignoring coordinates": self._blind[length]}


def convex_hull(grid: Tensor) -> tuple[Tensor, Tensor]:
    """The corners of the convex hull, exactly.

    :param grid: points, int64 [B, N, 2], below 2^24
    :return: the next corner counterclockwise, for each corner (int64 [B, N], meaningless elsewhere); which points are
        corners (bool [B, N])
    """
    chunks = grid.split(max(1, TRIPLES // grid.shape[1] ** 3))
    successor, corner = zip(*(_convex_hull(chunk) for chunk in chunks), strict=True)
    return torch.cat(successor), torch.cat(corner)


def _convex_hull(grid: Tensor) -> tuple[Tensor, Tensor]:
    pair = cross(grid[:, :, None], grid[:, None])  # [B, N, N]
    area = pair[:, :, :, None] + pair[:, None] + pair.transpose(1, 2)[:, :, None]  # of (i, j, k), twice: [B, N, N, N]
    no_point_right = (area >= 0).all(dim=3)  # of the line from i to j: [B, N, N]
    squared_length = (grid[:, :, None] - grid[:, None]).square().sum(dim=3)
    # Points on an edge are no corners: of several points straight ahead the farthest is next.
    edge_length, successor = squared_length.masked_fill(~no_point_right, 0).max(dim=2)
    corner = torch.zeros_like(edge_length).scatter_add(1, successor, (edge_length > 0).long()) > 0
    return successor, corner


def walk(successor: Tensor, corner: Tensor) -> Tensor:
    """The corners counterclockwise from the first in the input, int64 [B, N]; after the last they begin again."""
    here = corner.long().argmax(dim=1, keepdim=True)  # [B, 1]
    order = [here]
    for _ in range(corner.shape[1] - 1):
        order.append(successor.gather(1, order[-1]))
    return torch.cat(order, dim=1)


def by_coordinates(grid: Tensor, corner: Tensor) -> Tensor:
    """The corners by x, then y, followed by the other points: int64 [B, N]."""
    return (grid[..., 0] * GRID + grid[..., 1]).masked_fill(~corner, GRID**2).argsort(dim=1)
