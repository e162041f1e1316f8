"""Travelling salesman problem: the shortest closed tour."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from ..common.options import Range, require_options
from . import draw
from .base import Batch, VaryingLengthTask
from .held_karp import shortest_tour
from .points import GRID, classes, cross, labelled
from .registry import register_task

MAX_POINTS = 12  # memory and time grow as N² 2^N


@register_task("tsp")
class TravellingSalesman(VaryingLengthTask):
    """Name N uniform points of the unit square in the order of their shortest closed tour, then the end.

    ``relmem.tasks.points`` describes the encoding. The tour begins with the first point of the input and goes
    counterclockwise: a shortest tour does not cross itself, so it has such a direction. N is uniform from 5 to
    ``max_points``, one for each batch; the set ``test`` has the greatest and ``test_5`` N = 5 (Le et al. 2020,
    appendix H, where it is 10). Labels are one-hot over 20, as there.

    Beside the accuracy, ``evaluate`` measures tours: at each step the likeliest of the points not yet visited is next,
    so every answer becomes a tour. ``tour_length`` is their mean length, ``optimal_length`` that of the shortest.

    The trivial levels: a random tour from the first point has that point and the end right, and of the N - 1 places
    between one on average: 3 / (N + 1). A model that sorts the points by their angle around their mean, which takes no
    distances, is right about most small tours; measured on the set, or on drawn samples.

    :param max_points: greatest N; the paper's is 10
    """

    kind = "classes"
    output_size = classes(20)
    input_size = 2 + output_size

    def __init__(self, max_points: Annotated[int, Range(5, MAX_POINTS)] = 10) -> None:
        require_options(TravellingSalesman, locals())
        super().__init__(range(5, max_points + 1), (max_points, 5) if max_points > 5 else (5,))
        self.answer_steps = max_points + 1
        self._by_angle: dict[str | int, float] = {}  # the trivial level of each set and each N

    def sample(self, size: int, length: int, generator: torch.Generator) -> Batch:
        grid = draw.integers(GRID, (size, length, 2), generator)
        chunks = distances(grid).split(512)  # the solver's tables are large
        order = counterclockwise(grid, torch.cat([shortest_tour(chunk) for chunk in chunks]))
        counts = torch.full((size,), length, device=grid.device)
        return labelled(grid, order, counts, 20, generator)

    def trivial_at(self, length: int) -> dict[str, float]:
        if length not in self._by_angle:
            drawn = self.sample(2000, length, torch.Generator().manual_seed(length))
            self._by_angle[length] = self._points_by_angle(drawn)
        return {"random tour": 3 / (length + 1), "points by angle": self._by_angle[length]}

    def trivial(self, split: str | None = None) -> dict[str, float]:
        levels = super().trivial(split)
        if split is None:
            return levels
        if split not in self._by_angle:
            self._by_angle[split] = self._points_by_angle(self.split(split))
        return levels | {"points by angle": self._by_angle[split]}

    def _points_by_angle(self, batch: Batch) -> float:
        points, labels = self._points(batch)
        named = labels.gather(1, by_angle(points)).T  # [N, B]
        right = (named == batch.targets[: len(named)]).sum() + batch.size  # the end is right too
        return float(right / batch.targets.numel())

    def evaluate(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        points, labels = self._points(batch)
        n_points = labels.shape[1]
        shortest = (batch.targets[:n_points].T[:, :, None] == labels[:, None]).long().argmax(dim=2)  # [B, N]
        return super().evaluate(outputs, batch) | {
            "tour_length": tour_length(points, likeliest_tour(outputs[:n_points], labels)).mean(),
            "optimal_length": tour_length(points, shortest).mean(),
        }

    def _points(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Coordinates [B, N, 2] and labels [B, N] of the points."""
        shown = batch.inputs[: batch.answer_steps - 1].transpose(0, 1)
        return shown[:, :, :2], shown[:, :, 3:].argmax(dim=2) + 1  # channel 2 is class 0, the mark of the last point


def distances(grid: Tensor) -> Tensor:
    """int64 [B, N, 2] -> Euclidean distances in units of the unit square's side, float64 [B, N, N]."""
    return (grid[:, :, None] - grid[:, None]).square().sum(dim=3).double().sqrt() / GRID


def counterclockwise(grid: Tensor, order: Tensor) -> Tensor:
    """The same tours [B, N], reversed behind their first point where they went clockwise."""
    points = grid.gather(1, order[:, :, None].expand(-1, -1, 2))
    area = cross(points, points.roll(-1, dims=1)).sum(dim=1)  # [B]
    reverse = torch.cat([order[:, :1], order[:, 1:].flip(1)], dim=1)
    return torch.where(area[:, None] < 0, reverse, order)


def by_angle(points: Tensor) -> Tensor:
    """Points [B, N, 2] -> tours [B, N] that go counterclockwise around the mean of the points, from the first one."""
    x, y = (points - points.mean(dim=1, keepdim=True)).unbind(2)
    angle = torch.atan2(y, x)  # [B, N]
    return ((angle - angle[:, :1]) % (2 * torch.pi)).argsort(dim=1, stable=True)


def likeliest_tour(outputs: Tensor, labels: Tensor) -> Tensor:
    """Logits [N, B, C] and the classes of the points [B, N] -> tours through all points, int64 [B, N]."""
    visited = torch.zeros_like(labels, dtype=torch.bool)
    order = []
    for logits in outputs:
        here = logits.gather(1, labels).masked_fill(visited, -torch.inf).argmax(dim=1, keepdim=True)  # [B, 1]
        visited = visited.scatter(1, here, True)
        order.append(here)
    return torch.cat(order, dim=1)


def tour_length(points: Tensor, order: Tensor) -> Tensor:
    """Length of the closed tours [B, N] through points [B, N, 2]: [B]."""
    stops = points.gather(1, order[:, :, None].expand(-1, -1, 2))
    return (stops - stops.roll(-1, dims=1)).norm(dim=2).sum(dim=1)
