"""Shortest path between two nodes of a weighted graph."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from . import draw
from .base import IGNORED
from .graphs import FAR, Graphs, GraphTask, Solution, closure
from .registry import register_task


@register_task("shortest_path")
class ShortestPath(GraphTask):
    """Name the nodes of the shortest path between two nodes by their features, both ends included.

    ``relmem.tasks.graphs`` describes the graphs. The nodes asked about are the source and the destination, two
    different random nodes, and the answer goes from one to the other (Le et al. 2020, appendix H).

    The trivial level: a model that names the source, and the destination ever after, has 2 of P steps right for paths
    of P nodes. The mean of P is measured on drawn samples.
    """

    def __init__(self, max_nodes: int = 20, max_edges: int = 30) -> None:
        super().__init__(max_nodes, max_edges)
        self.answer_steps = max_nodes

    def trivial(self, split: str | None = None) -> dict[str, float]:
        return {"source, then destination": 2 / self._mean_path}

    @cached_property
    def _mean_path(self) -> float:
        """The mean number of nodes of a path."""
        targets = self.batch(1000, torch.Generator().manual_seed(0)).targets
        return float((targets != IGNORED).sum() / targets.shape[1])

    def solve(self, graphs: Graphs, generator: torch.Generator) -> Solution:
        source, offset = (
            (draw.uniform(0, 1, tuple(end.shape), generator) * end).long()  # below the number of nodes, or one less
            for end in (graphs.n_nodes, graphs.n_nodes - 1)
        )
        ends = torch.stack([source, (source + 1 + offset) % graphs.n_nodes], dim=1)
        return shortest_path(graphs, ends, self.max_nodes)


def shortest_path(graphs: Graphs, ends: Tensor, max_nodes: int) -> Solution:
    """The nodes of the shortest path of each graph from ``ends[:, 0]`` to ``ends[:, 1]``."""
    length = closure(graphs.matrix(max_nodes), torch.add)
    row = torch.arange(len(ends), device=ends.device)
    to_source, to_destination = length[row, ends[:, 0]], length[row, ends[:, 1]]  # [B, N] each
    shortest = to_source.gather(1, ends[:, 1:])  # [B, 1]
    on_path = to_source + to_destination == shortest
    n_nodes = on_path.sum(dim=1)
    tight = [
        to_source.gather(1, a) + graphs.weight + to_destination.gather(1, b) == shortest
        for a, b in (graphs.ends.unbind(2), graphs.ends.flip(2).unbind(2))
    ]
    # All shortest paths together have one edge fewer than nodes only if they are one path.
    unique = torch.cat(tight, dim=1).sum(dim=1) == n_nodes - 1
    return Solution(ends, to_source.masked_fill(~on_path, FAR).argsort(dim=1), n_nodes, unique)
