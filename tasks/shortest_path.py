"""Shortest path between two nodes of a weighted graph."""

from __future__ import annotations

import torch
from torch import Tensor

from . import draw
from .base import Batch
from .graphs import FAR, Edges, Graphs, GraphTask, Nodes, Solution, closure, shown_edges
from .registry import register_task


@register_task("shortest_path")
class ShortestPath(GraphTask):
    """Name the nodes of the shortest path between two nodes by their features, both ends included.

    ``relmem.tasks.graphs`` describes the graphs. The nodes asked about are the source and the destination, two
    different random nodes, and the answer goes from one to the other (Le et al. 2020, appendix H).

    The trivial levels, measured on the set or on drawn samples: a model that names the source, and the destination ever
    after, has 2 of P steps right for paths of P nodes. A model that ignores the weights takes a path of the fewest
    edges, any of them where there are several.
    """

    def __init__(self, max_nodes: Nodes = 20, max_edges: Edges = 30) -> None:
        super().__init__(max_nodes, max_edges)
        self.answer_steps = max_nodes

    def strategies(self, batch: Batch) -> dict[str, Tensor]:
        source, destination = batch.inputs[self.max_edges :][:2, :, : self.output_size].argmax(dim=2)  # [B] each
        step = torch.arange(batch.answer_steps, device=source.device)[:, None]
        direct = torch.where(step == 0, source, destination)  # [S, B]
        return {
            "source, then destination": direct,
            "fewest edges, weights ignored": self._fewest_edges(batch, source, destination),
        }

    def _fewest_edges(self, batch: Batch, source: Tensor, destination: Tensor) -> Tensor:
        """A path with the fewest edges [S, B], whatever their weights; the destination again at the steps behind it."""
        ends, weight = shown_edges(batch.inputs[: self.max_edges])
        ends = ends.transpose(0, 1)  # [B, E, 2]
        absent = (weight == 0).T
        edges = Graphs(source, ends, torch.ones_like(absent, dtype=torch.int64).masked_fill(absent, FAR))
        adjacent = (edges.matrix(self.output_size) < FAR).float()  # nodes by their features, each its own neighbour
        hops, reached = torch.zeros_like(adjacent[:, 0]), draw.one_hot(destination, self.output_size)  # [B, N] each
        for _ in range(self.max_nodes):
            hops += reached == 0
            reached = (adjacent @ reached[:, :, None])[:, :, 0].sign()
        here, path = source, [source]
        for _ in range(batch.answer_steps - 1):
            neighbour = adjacent[torch.arange(len(here)), here] > 0  # [B, N]
            here = hops.masked_fill(~neighbour, FAR).argmin(dim=1)
            path.append(here)
        return torch.stack(path)

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
