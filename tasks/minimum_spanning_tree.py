"""Minimum spanning tree of a weighted graph."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Batch
from .graphs import FAR, MIN_NODES, Edges, Graphs, GraphTask, Nodes, Solution, closure, shown_edges
from .registry import register_task


@register_task("minimum_spanning_tree")
class MinimumSpanningTree(GraphTask):
    """Name the edges of the minimum spanning tree, each by the features of its two nodes.

    ``relmem.tasks.graphs`` describes the graphs; the answer begins after the last edge (Le et al. 2020, appendix H).
    Its order is Kruskal's: edges by ascending weight, of equal weights the one shown earlier first, and the two nodes
    in the order in which they were shown.

    The trivial levels: a random node of the graph is right once in N steps. Trees of N nodes are answered by 2(N - 1)
    steps, so that the mean over all steps is E[(N - 1) / N] / E[N - 1]. A model that names the N - 1 lightest edges,
    whether or not they close a cycle, is right up to the first cycle, and now and then behind it; measured on the set,
    or on drawn samples.
    """

    def __init__(self, max_nodes: Nodes = 20, max_edges: Edges = 30) -> None:
        super().__init__(max_nodes, max_edges)
        self.answer_steps = 2 * (max_nodes - 1)

    def trivial(self, split: str | None = None) -> dict[str, float]:
        n_nodes = range(MIN_NODES, self.max_nodes + 1)
        random_node = sum((n - 1) / n for n in n_nodes) / sum(n - 1 for n in n_nodes)
        return {"random node": random_node} | super().trivial(split)

    def strategies(self, batch: Batch) -> dict[str, Tensor]:
        ends, weight = shown_edges(batch.inputs)  # [T, B, 2], [T, B]
        order = weight.masked_fill(weight == 0, torch.inf).argsort(dim=0, stable=True)[: batch.answer_steps // 2]
        sorted_ends = ends.gather(0, order[:, :, None].expand(-1, -1, 2))  # [S / 2, B, 2]
        return {"edges by weight, cycles ignored": sorted_ends.transpose(1, 2).flatten(0, 1)}

    def solve(self, graphs: Graphs, generator: torch.Generator) -> Solution:
        return minimum_spanning_tree(graphs, self.max_nodes)


def minimum_spanning_tree(graphs: Graphs, max_nodes: int) -> Solution:
    """The nodes of the edges of each graph's minimum spanning tree."""
    # An edge is in some minimum spanning tree if no path between its ends is made of lighter edges alone.
    bottleneck = closure(graphs.matrix(max_nodes), torch.maximum).flatten(1)  # [B, N²]
    a, b = graphs.ends.unbind(2)
    in_a_tree = (bottleneck.gather(1, a * max_nodes + b) == graphs.weight) & (graphs.weight < FAR)
    n_edges = graphs.n_nodes - 1
    order = graphs.weight.masked_fill(~in_a_tree, FAR).argsort(dim=1, stable=True)[:, : max_nodes - 1]
    nodes = graphs.ends.gather(1, order[..., None].expand(-1, -1, 2)).flatten(1)  # [B, 2(N - 1)]
    return Solution(a[:, :0], nodes, 2 * n_edges, in_a_tree.sum(dim=1) == n_edges)
