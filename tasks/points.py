"""Points of the unit square with random labels: the input and the answer of the geometric tasks.

Points are uniform on a grid of 2^24 by 2^24, on which areas are exact integers and coordinates exact floats.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import draw
from .base import IGNORED, Batch

GRID = 2**24


def coordinates(grid: Tensor) -> Tensor:
    """Grid points, int64, as float32 of [0, 1)."""
    return grid.float() / GRID


def cross(a: Tensor, b: Tensor) -> Tensor:
    """a [..., 2], b [..., 2] -> x_a · y_b - y_a · x_b [...], twice the signed area of the triangle (0, a, b)."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def classes(max_points: int) -> int:
    """Class 0 is never an answer, 1 to ``max_points`` are labels, and the last one ends the answer."""
    return max_points + 2


def labelled(grid: Tensor, order: Tensor, counts: Tensor, max_points: int, generator: torch.Generator) -> Batch:
    """Questions that show the points under random labels; answers that name some of them in a given order.

    One step for each point, [x, y | one-hot class], the label a random one of 1 to N, and class 0 set as well at the
    last point; one empty step; then the answer, the labels followed by the class of the end (the encoding of the
    released code of Le et al. 2020, which leaves class 0 for padding).

    :param grid: the points, int64 [B, N, 2]
    :param order: the points of the answer, first to last, int64 [B, N]
    :param counts: how many of ``order`` belong to the answer, int64 [B]
    """
    size, n_points, _ = grid.shape
    labels = 1 + draw.permutations(size, n_points, generator)  # [B, N]
    answer_steps = int(counts.max()) + 1
    step = torch.arange(answer_steps, device=grid.device)[:, None]  # [S, 1]
    named = labels.gather(1, order).T[:answer_steps]
    targets = torch.full((answer_steps, size), IGNORED, device=grid.device)
    targets[: len(named)] = torch.where(step[: len(named)] < counts, named, IGNORED)
    targets[step.expand_as(targets) == counts] = classes(max_points) - 1

    inputs = torch.zeros(n_points + 1 + answer_steps, size, 2 + classes(max_points), device=grid.device)
    inputs[:n_points, :, :2] = coordinates(grid).transpose(0, 1)
    inputs[:n_points, :, 2:] = draw.one_hot(labels.T, classes(max_points))
    inputs[n_points - 1, :, 2] = 1
    return Batch(inputs, targets)
