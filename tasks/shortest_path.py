"""Shortest path between two nodes of a weighted graph."""

from __future__ import annotations

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
    of P nodes. The mean of P is that of the set, or of drawn samples.
    """

    def __init__(self, max_nodes: int = 20, max_edges: int = 30) -> None:
        super().__init__(max_nodes, max_edges)
        self.answer_steps = max_nodes
        self._trivial: dict[str | None, float] = {}

    def trivial(self, split: str | None = None) -> dict[str, float]:
        if split not in self._trivial:
            drawn = self.batch(10_000, torch.Generator().manual_seed(0)) if split is None else self.split(split)
            self._trivial[split] = float(2 * drawn.size / (drawn.targets != IGNORED).sum())
        return {"source, then destination": self._trivial[split]}

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
