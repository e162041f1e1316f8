"""Random weighted graphs as sequences of edges: the input of the graph tasks.

The rules are those of Le et al. 2020, appendix H: N nodes, uniform from 5 to ``max_nodes``; a path through all of
them, so that the graph is connected; more edges between random pairs, up to E edges; weights uniform from 1 to 10. E is
uniform from 6 to ``max_edges``, as far as N allows: no less than the path, no more than all pairs.

What the appendix leaves open is decided here. Every node has a random feature of its own, one of 2 · ``max_nodes`` (the
paper's 40 for 20 nodes). A step shows one edge, [feature | feature | weight / 10], the edges and the two ends of each
in random order. The graphs of a batch differ in size; those with fewer than ``max_edges`` edges are padded in front.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from ..common.options import Range, require_option, require_options
from . import draw
from .base import IGNORED, Batch, Task

MIN_NODES, MIN_EDGES, MAX_WEIGHT = 5, 6, 10
Nodes = Annotated[int, Range(MIN_NODES)]
Edges = Annotated[int, Range(MIN_EDGES)]
MAX_ROUNDS = 500
FAR = 10**6
"""Weight of an edge that is not there: more than that of any path."""


class Graphs(NamedTuple):
    """A batch of connected graphs, with E slots for edges, the empty slots first."""

    n_nodes: Tensor  # int64 [B]
    ends: Tensor  # the two nodes of each edge in the order of the input, int64 [B, E, 2]
    weight: Tensor  # int64 [B, E], FAR in empty slots

    def matrix(self, max_nodes: int) -> Tensor:
        """Weights between nodes, int64 [B, N, N]: FAR without an edge, 0 on the diagonal."""
        a, b = self.ends.unbind(2)
        flat = self.weight.new_full((len(self.weight), max_nodes**2), FAR)
        flat = flat.scatter(1, a * max_nodes + b, self.weight).scatter(1, b * max_nodes + a, self.weight)
        matrix = flat.unflatten(1, (max_nodes, max_nodes))
        matrix.diagonal(dim1=1, dim2=2).zero_()
        return matrix


class Solution(NamedTuple):
    """Which nodes are asked about, and which nodes are the answer."""

    question: Tensor  # int64 [B, Q]
    answer: Tensor  # int64 [B, S], of which the first ``steps`` count
    steps: Tensor  # int64 [B]
    unique: Tensor  # whether it is the only optimum; where it is not, ``answer`` and ``steps`` mean nothing: bool [B]


class GraphTask(Task):
    """A task on random graphs, answered by the features of nodes. A subclass defines ``solve``.

    After the edges, steps show the features of the nodes asked about, in the place of an edge's first node; then come
    the empty steps of the answer. Graphs whose optimum is not unique are drawn again, for the same N and E.

    :param max_nodes: greatest number of nodes; the paper's is 20
    :param max_edges: greatest number of edges; the paper's is 30
    """

    kind = "classes"

    def __init__(self, max_nodes: Nodes = 20, max_edges: Edges = 30) -> None:
        require_options(GraphTask, locals())
        pairs = max_nodes * (max_nodes - 1) // 2
        edges = Range(max_nodes - 1, pairs, why="from a path to all pairs of nodes")
        require_option("max_edges", Annotated[int, edges], max_edges)
        self.max_nodes, self.max_edges = max_nodes, max_edges
        self.output_size = 2 * max_nodes
        self.input_size = 2 * self.output_size + 1
        self._trivial: dict[str | None, dict[str, float]] = {}

    def solve(self, graphs: Graphs, generator: torch.Generator) -> Solution:
        """Questions about graphs, drawn where there is a choice, with their answers."""
        raise NotImplementedError

    def strategies(self, batch: Batch) -> dict[str, Tensor]:
        """Answers [S, B] of strategies that lack the sought ability, by name."""
        raise NotImplementedError

    def trivial(self, split: str | None = None) -> dict[str, float]:
        """The accuracy of the strategies, on a set or on drawn samples."""
        if split not in self._trivial:
            batch = self.batch(4000, torch.Generator().manual_seed(0)) if split is None else self.split(split)
            n_scored = (batch.targets != IGNORED).sum()
            self._trivial[split] = {
                name: float((answer == batch.targets).sum() / n_scored)
                for name, answer in self.strategies(batch).items()
            }
        return self._trivial[split]

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        graphs, solution = self._draw_unique(size, generator)
        features = draw.permutations(size, self.output_size, generator)[:, : self.max_nodes]  # of every node [B, N]
        step = torch.arange(int(solution.steps.max()), device=features.device)[:, None]
        answer = features.gather(1, solution.answer).T[: len(step)]
        targets = torch.where(step < solution.steps, answer, IGNORED)  # [S, B]

        edges = self._show(graphs, features)
        n_asked = solution.question.shape[1]
        rest = edges.new_zeros(n_asked + len(step), size, self.input_size)
        rest[:n_asked, :, : self.output_size] = draw.one_hot(features.gather(1, solution.question).T, self.output_size)
        n_empty = (graphs.weight == FAR).sum(dim=1)
        return Batch(torch.cat([edges, rest]), targets, first=n_empty)

    def _draw_unique(self, size: int, generator: torch.Generator) -> tuple[Graphs, Solution]:
        n_nodes, n_edges = self.draw_sizes(size, generator)
        graphs = self.draw_graphs(n_nodes, n_edges, generator)
        solution = self.solve(graphs, generator)
        rounds = 0
        while len(again := (~solution.unique).nonzero()[:, 0]):
            rounds += 1
            if rounds > MAX_ROUNDS:
                raise ValueError(
                    f"graphs of up to {self.max_nodes} nodes and {self.max_edges} edges hardly ever have a single "
                    "optimum: choose a smaller max_edges"
                )
            new_graphs = self.draw_graphs(n_nodes[again], n_edges[again], generator)
            new = (*new_graphs, *self.solve(new_graphs, generator))
            for field, replacement in zip((*graphs, *solution), new, strict=True):
                field[again] = replacement
        return graphs, solution

    def draw_sizes(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Numbers of nodes and of edges, int64 [B] each."""
        n_nodes = MIN_NODES + draw.integers(self.max_nodes - MIN_NODES + 1, (size,), generator)
        fewest = (n_nodes - 1).clamp(min=MIN_EDGES)
        most = (n_nodes * (n_nodes - 1) // 2).clamp(max=self.max_edges)
        return n_nodes, fewest + (draw.uniform(0, 1, (size,), generator) * (most - fewest + 1)).long()

    def draw_graphs(self, n_nodes: Tensor, n_edges: Tensor, generator: torch.Generator) -> Graphs:
        """Graphs of given sizes, int64 [B] each."""
        a, b = torch.triu_indices(self.max_nodes, self.max_nodes, offset=1, device=n_nodes.device)  # all pairs [P]
        # Nodes get their features at random later, so the path may be 0, 1, 2, ... here.
        rank = draw.uniform(0, 1, (len(n_nodes), len(a)), generator)
        rank = rank.masked_fill(b == a + 1, -1).masked_fill(b >= n_nodes[:, None], 2)
        pair = rank.argsort(dim=1)[:, : self.max_edges]  # of these the first n_edges are meant: [B, E]
        absent = torch.arange(self.max_edges, device=a.device) >= n_edges[:, None]
        order = draw.uniform(0, 1, tuple(pair.shape), generator).masked_fill(absent, -1).argsort(dim=1)
        pair, absent = pair.gather(1, order), absent.gather(1, order)
        ends = torch.stack([a[pair], b[pair]], dim=2)
        swap = draw.integers(2, tuple(pair.shape), generator) == 1
        ends = torch.where(swap[..., None], ends.flip(2), ends)
        weight = 1 + draw.integers(MAX_WEIGHT, tuple(pair.shape), generator)
        return Graphs(n_nodes, ends, weight.masked_fill(absent, FAR))

    def _show(self, graphs: Graphs, features: Tensor) -> Tensor:
        """The steps that show the edges, [E, B, F]."""
        named = features[:, None].expand(-1, self.max_edges, -1).gather(2, graphs.ends)  # [B, E, 2]
        weight = graphs.weight[..., None] / MAX_WEIGHT
        steps = torch.cat([draw.one_hot(named, self.output_size).flatten(2), weight], dim=2)
        return steps.masked_fill(graphs.weight[..., None] == FAR, 0).transpose(0, 1)


def shown_edges(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The edges in the inputs [T, B, F] of a batch: the features of their two ends, int64 [T, B, 2], and their weights
    [T, B], 0 where a step shows none."""
    *ends, weight = inputs.split([(inputs.shape[2] - 1) // 2] * 2 + [1], dim=2)
    return torch.stack([end.argmax(dim=2) for end in ends], dim=2), weight[:, :, 0]


def closure(matrix: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The least cost between all pairs of nodes (Floyd & Warshall 1962), weights [B, N, N] -> costs [B, N, N].

    :param join: cost of two parts of a path from theirs: their sum for lengths, the maximum for bottlenecks
    """
    for k in range(matrix.shape[1]):
        matrix = torch.minimum(matrix, join(matrix[:, :, k, None], matrix[:, None, k]))
    return matrix
