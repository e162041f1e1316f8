"""The targets of every task against a slow solution of each sample, which reads the question from its inputs alone."""

from collections import Counter
from itertools import combinations, permutations, product
from math import atan2, comb, dist, pi
from pathlib import Path

import networkx as nx
import pytest
import torch
from torch import Tensor

from relmem.tasks import IGNORED, make_task
from relmem.tasks.associative_retrieval import greatest_count
from relmem.tasks.convex_hull import convex_hull, walk
from relmem.tasks.graphs import FAR, Graphs
from relmem.tasks.minimum_spanning_tree import minimum_spanning_tree
from relmem.tasks.shortest_path import shortest_path
from relmem.tasks.tsp import tour_length


def draw(task, size=30, seed=0):
    return task.batch(size, torch.Generator().manual_seed(seed))


def samples(task, size=30, seeds=(0, 1, 2)):
    """(inputs [T, F], targets) one by one, of several batches, so of several lengths."""
    for seed in seeds:
        batch = draw(task, size, seed)
        for b in range(size):
            yield batch.inputs[:, b], batch.targets[b] if task.kind == "class" else batch.targets[:, b]


def hot(x: Tensor) -> int:
    """The only component that is 1."""
    (index,) = (x == 1).nonzero()[:, 0].tolist()
    return index


def scored(targets: Tensor) -> list[int]:
    """The answer without the unscored steps, which come last."""
    answer = [c for c in targets.tolist() if c != IGNORED]
    assert targets[len(answer) :].eq(IGNORED).all()
    return answer


@pytest.mark.parametrize(("objects", "features"), [(8, 16), (4, 8)])
def test_nth_farthest(objects, features):
    ranks = set()
    for inputs, target in samples(make_task("nth_farthest", objects=objects, features=features)):
        vectors = [x[:features].tolist() for x in inputs]
        labels, ns, ms = ([hot(part) for part in inputs[:, features:].split(objects, dim=1)[i]] for i in range(3))
        assert sorted(labels) == list(range(objects)) and len(set(ns)) == len(set(ms)) == 1
        query = vectors[labels.index(ms[0])]
        by_distance = sorted(zip(vectors, labels, strict=True), key=lambda pair: -dist(pair[0], query))
        assert target == by_distance[ns[0]][1]
        assert ns[0] != objects - 1 or target == ms[0]
        ranks.add(ns[0])
    assert ranks == set(range(objects))


def test_nth_farthest_without_vectors():
    task = make_task("nth_farthest")
    batch = draw(task, 20000)
    n, m = batch.inputs[0, :, 24:32].argmax(dim=1), batch.inputs[0, :, 32:].argmax(dim=1)
    guess = torch.where(n == 7, m, (m + torch.randint(1, 8, m.shape)) % 8)
    assert (guess == batch.targets).float().mean().item() == pytest.approx(
        task.trivial()["ignoring the vectors"], abs=0.015
    )


@pytest.mark.parametrize("length", [4, 30, 50])
def test_associative_retrieval(length):
    symbols = "0123456789abcdefghijklmnopqrstuvwxyz?"
    for inputs, target in samples(make_task("associative_retrieval", length=length)):
        text = "".join(symbols[hot(x)] for x in inputs)
        pairs, question, letter = text[:-3], text[-3:-1], text[-1]
        assert len(text) == length + 1 and question == "??"
        digit_of = dict(zip(pairs[::2], pairs[1::2], strict=True))
        assert len(digit_of) == len(pairs) // 2 and all(key.isalpha() for key in digit_of)
        assert int(target) == int(digit_of[letter])


def test_the_most_frequent_digit():
    task = make_task("associative_retrieval")
    batch = draw(task, 20000)
    counts = batch.inputs[:-3, :, :10].sum(dim=0)  # [B, 10]
    right = (counts.argmax(dim=1) == batch.targets).float().mean().item()
    assert right == pytest.approx(task.trivial()["most frequent digit"], abs=0.01)


@pytest.mark.parametrize(("draws", "classes"), [(1, 3), (4, 2), (5, 3)])
def test_greatest_count_by_enumeration(draws, classes):
    counts = [max(Counter(outcome).values()) for outcome in product(range(classes), repeat=draws)]
    assert greatest_count(draws, classes) == pytest.approx(sum(counts) / len(counts))


def test_copy():
    for inputs, target in samples(make_task("copy", bits=5)):
        length = len(target)
        assert len(inputs) == 2 * length + 2
        assert hot(inputs[0]) == 5 and hot(inputs[length + 1]) == 6
        assert torch.equal(inputs[1 : length + 1, :5], target)
        assert not inputs[1 : length + 1, 5:].any() and not inputs[length + 2 :].any()


def test_priority_sort():
    for inputs, target in samples(make_task("priority_sort", items=7, answers=4, bits=5)):
        assert not inputs[7:].any() and not inputs[:, 6].any()
        ranked = sorted(inputs[:7].tolist(), key=lambda item: -item[5])
        assert [item[:5] for item in ranked[:4]] == target.tolist()


class TestRelationalAssociativeRecall:
    @pytest.mark.parametrize(("variant", "bits"), [("as_executed", 32), ("as_described", 32), ("as_described", 2)])
    def test_targets(self, variant, bits):
        task = make_task("relational_associative_recall", variant=variant, bits=bits)
        numbers, lengths, positions = set(), set(), set()
        for inputs, target in samples(task, seeds=range(12)):
            items, query = self.parse(inputs, len(target), bits)
            position = items.index(query)  # the first of equal items need not be the query, but is as far from all
            others = items[:position] + items[position + 1 :]
            choose = max if query[-1] == 1 else min
            right = choose(others, key=lambda item: dist(item, query))  # the first of equals
            answer = target.flatten().tolist()
            # With few bits items may coincide; then the distance alone says whether an answer is right.
            assert answer == right if bits == 32 else dist(answer, query) == dist(right, query)
            numbers.add(len(items))
            lengths.add(len(target))
            positions.add(position)
        expected = ({3}, {2, 3, 4, 5}, {0, 1}) if variant == "as_executed" else ({2, 3, 4, 5}, {3}, {0, 1, 2, 3, 4})
        assert (numbers, lengths, positions) == expected

    @staticmethod
    def parse(inputs, length, bits):
        """The items and the query, each as the list of all its bits."""
        flags = inputs[:, bits:]
        starts = flags.any(dim=1).nonzero()[:, 0].tolist()
        *items, query, closing = [inputs[t + 1 : t + 1 + length, :bits].flatten().tolist() for t in starts]
        assert [hot(flags[t]) for t in starts] == [0] * len(items) + [1, 1]
        assert starts == list(range(0, len(inputs) - length, length + 1))
        assert not any(closing)
        return items, query

    def test_ties_go_to_the_earlier_item(self):
        items = torch.tensor([[0, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 1]]).float()[:, None, None]  # [N, 1, 1, bits]
        task = make_task("relational_associative_recall", bits=3)
        answer = task._answer(items, items[0], torch.tensor([0]))  # all others are 2 bits away
        assert answer[0, 0].tolist() == [1, 1, 0]

    @pytest.mark.parametrize("variant", ["as_executed", "as_described"])
    def test_recall_without_choice(self, variant):
        task = make_task("relational_associative_recall", variant=variant)
        for length in task.lengths:
            batch = task.sample(4000, length, torch.Generator().manual_seed(length))
            steps = batch.answer_steps
            shown = batch.inputs[: -2 * steps - 2].unflatten(0, (-1, steps + 1))[:, 1:, :, :32]  # [N, L, B, bits]
            query = batch.inputs[-2 * steps - 1 : -steps - 1, :, :32]
            others = shown.sum(dim=0) - query
            excess = 2 * others - (len(shown) - 1)
            majority = torch.where(excess == 0, torch.rand_like(excess) < 0.5, excess > 0)
            errors = (majority != batch.targets.bool()).sum(dim=(0, 2)).float().mean().item()
            assert errors == pytest.approx(task.trivial_at(length)["cannot choose"], abs=0.6)

    @pytest.mark.parametrize("bits", [2, 8])
    def test_recall_bit_by_bit(self, bits):
        """Of two items that differ in m bits, m - k of them as in the query, it has min(k, m - k) wrong."""
        task = make_task("relational_associative_recall", bits=bits)
        for length in task.lengths:
            n = length * bits
            expected = sum(comb(n, m) / 2**n * self.mean_minority(m) for m in range(n + 1))
            assert task.trivial_at(length)["bit by bit"] == pytest.approx(expected, rel=0.03)

    @staticmethod
    def mean_minority(m):
        return sum(comb(m, k) / 2**m * min(k, m - k) for k in range(m + 1))

    def test_one_query_for_the_whole_batch_as_executed_and_one_for_each_sample_as_described(self):
        for variant, several in (("as_executed", False), ("as_described", True)):
            task = make_task("relational_associative_recall", variant=variant)
            inputs, steps = (batch := task.sample(30, 5, torch.Generator().manual_seed(0))).inputs, batch.answer_steps
            parsed = [self.parse(inputs[:, b], steps, 32) for b in range(30)]
            positions = {items.index(query) for items, query in parsed}
            assert (len(positions) > 1) == several

    @pytest.mark.parametrize("variant", ["as_executed", "as_described"])
    def test_fixed_sets_ask_about_items_at_all_places(self, variant):
        task = make_task("relational_associative_recall", variant=variant)
        for name, length in {"valid": 5, "test": 5, "test_4": 4, "test_3": 3, "test_2": 2}.items():
            batch = task.split(name)
            assert batch.answer_steps == (length if variant == "as_executed" else 3)
            parsed = [self.parse(batch.inputs[:, b], batch.answer_steps, 32) for b in range(100)]
            positions = [items.index(query) for items, query in parsed]
            expected = 2 if variant == "as_executed" else length
            assert set(positions) == set(range(expected))
            assert min(map(positions.count, set(positions))) > 100 / expected / 3


class TestConvexHull:
    @pytest.mark.parametrize("order", ["counterclockwise", "coordinates"])
    def test_targets(self, order):
        for inputs, target in samples(make_task("convex_hull", order=order), size=8, seeds=range(6)):
            points, labels = parse_points(inputs, len(target))
            corners = slow_hull(points)
            if order == "counterclockwise":
                first = min(corners, key=points.index)
                corners = corners[corners.index(first) :] + corners[: corners.index(first)]
            else:
                corners = sorted(corners)
            assert scored(target) == [*(labels[points.index(corner)] for corner in corners), 21]

    @pytest.mark.parametrize("seed", range(3))
    def test_many_points_in_line(self, seed):
        """On a small grid, where most edges hold more points than corners."""
        every = torch.cartesian_prod(torch.arange(5), torch.arange(4))
        grid = torch.stack([every[torch.randperm(len(every))[:9]] for _ in range(100)])
        successor, corner = convex_hull(grid)
        order = walk(successor, corner)
        for b in range(len(grid)):
            points = [tuple(point) for point in grid[b].tolist()]
            corners = slow_hull(points)
            found = [points[i] for i in order[b, : int(corner[b].sum())].tolist()]
            assert set(found) == set(corners) and found[0] == min(corners, key=points.index)
            assert area(found) == area(corners) > 0

    @pytest.mark.parametrize("order", ["counterclockwise", "coordinates"])
    def test_the_best_answer_without_coordinates(self, order):
        task = make_task("convex_hull", order=order)
        batch = task.sample(4000, 7, torch.Generator().manual_seed(5))
        steps = [Counter() for _ in range(batch.answer_steps)]
        total = 0
        for b in range(batch.size):
            target = scored(batch.targets[:, b])
            labels = [row[3:].argmax().item() + 1 for row in batch.inputs[:7, b]]
            for counter, label in zip(steps, target, strict=False):
                counter[labels.index(label) if label in labels else "end"] += 1
            total += len(target)
        right = sum(counter.most_common(1)[0][1] for counter in steps)
        assert right / total == pytest.approx(task.trivial_at(7)["ignoring coordinates"], abs=0.015)


def parse_points(inputs, answer_steps):
    """The points and their labels; checks the marks and the empty steps."""
    n_points = len(inputs) - 1 - answer_steps
    assert not inputs[n_points:].any()
    shown = inputs[:n_points].clone()
    assert shown[:, 2].tolist() == [0] * (n_points - 1) + [1]
    shown[:, 2] = 0
    labels = [hot(x[2:]) for x in shown]
    assert sorted(labels) == list(range(1, n_points + 1))
    return [tuple(point) for point in shown[:, :2].tolist()], labels


def slow_hull(points):
    """The monotone chain of Andrew (1979), counterclockwise."""

    def half(ordered):
        chain = []
        for c in ordered:
            while len(chain) > 1 and turn(chain[-2], chain[-1], c) <= 0:
                chain.pop()
            chain.append(c)
        return chain[:-1]

    return half(sorted(points)) + half(sorted(points, reverse=True))


def turn(a, b, c):
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def area(polygon):
    return sum(turn((0, 0), a, b) for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True))


class TestTravellingSalesman:
    def test_targets(self):
        for inputs, target in samples(make_task("tsp", max_points=7), size=10, seeds=range(5)):
            points, labels = parse_points(inputs, len(target))
            *tour, end = scored(target)
            order = [labels.index(c) for c in tour]
            assert end == 21 and order[0] == 0 and sorted(order) == list(range(len(points)))
            shortest = min(length((points[0], *rest)) for rest in permutations(points[1:]))
            assert length([points[i] for i in order]) == pytest.approx(shortest)
            assert area([points[i] for i in order]) > 0

    def test_ten_points_are_no_longer_than_after_exchanges(self):
        """Too many tours to try, but none of the 2-opt neighbours may be shorter."""
        batch = make_task("tsp").sample(20, 10, torch.Generator().manual_seed(0))
        for b in range(20):
            points, labels = parse_points(batch.inputs[:, b], 11)
            tour = [points[labels.index(c)] for c in batch.targets[:10, b].tolist()]
            for i, j in combinations(range(11), 2):
                assert length(tour) <= length(tour[:i] + tour[i:j][::-1] + tour[j:]) + 1e-6

    @pytest.mark.parametrize(("n_points", "size", "mean"), [(5, 4000, 2.12), (10, 800, 2.87)])
    def test_the_mean_optimum_is_that_of_vinyals_et_al_2015(self, n_points, size, mean):
        task = make_task("tsp")
        batch = task.sample(size, n_points, torch.Generator().manual_seed(0))
        known = torch.nn.functional.one_hot(batch.targets, task.output_size).float()
        assert task.evaluate(known, batch)["optimal_length"].item() == pytest.approx(mean, abs=0.04)

    def test_tour_lengths(self):
        task = make_task("tsp")
        batch = task.sample(50, 6, torch.Generator().manual_seed(0))
        known = torch.nn.functional.one_hot(batch.targets, task.output_size).float()
        metrics = task.evaluate(known, batch)
        assert metrics["tour_length"] == metrics["optimal_length"]
        random = task.evaluate(torch.randn_like(known), batch)
        assert random["optimal_length"] == metrics["optimal_length"] < random["tour_length"]
        square = torch.tensor([[[0, 0], [1, 1], [1, 0], [0, 1]]]).float()
        assert tour_length(square, torch.tensor([[0, 2, 1, 3]])).item() == 4

    def test_an_answer_that_repeats_itself_still_becomes_a_tour(self):
        task = make_task("tsp")
        batch = task.sample(50, 6, torch.Generator().manual_seed(0))
        constant = torch.randn(task.output_size).expand(7, 50, -1)
        metrics = task.evaluate(constant, batch)
        assert metrics["tour_length"] > metrics["optimal_length"]

    def test_a_random_tour(self):
        task = make_task("tsp")
        batch = task.sample(3000, 6, torch.Generator().manual_seed(0))
        rest = torch.rand(3000, 5).argsort(dim=1) + 1
        labels = batch.inputs[:6, :, 3:].argmax(dim=2).T + 1
        guess = torch.cat([labels[:, :1], labels.gather(1, rest), torch.full((3000, 1), 21)], dim=1).T
        assert (guess == batch.targets).float().mean().item() == pytest.approx(
            task.trivial_at(6)["random tour"], abs=0.01
        )

    @pytest.mark.parametrize(("split", "n_points", "known"), [("test_5", 5, 0.929), ("test", 10, 0.728)])
    def test_points_by_angle(self, split, n_points, known):
        task = make_task("tsp")
        batch, right = task.split(split), 0
        for b in range(batch.size):
            points = batch.inputs[:n_points, b]
            x, y = points[:, 0].mean().item(), points[:, 1].mean().item()
            angles = [atan2(point[1].item() - y, point[0].item() - x) for point in points]
            order = sorted(range(n_points), key=lambda i: (angles[i] - angles[0]) % (2 * pi))
            named = [int(points[i, 3:].argmax()) + 1 for i in order] + [21]
            right += sum(a == b for a, b in zip(named, batch.targets[:, b].tolist(), strict=True))
        level = right / batch.targets.numel()
        assert level == pytest.approx(task.trivial(split)["points by angle"], abs=1e-3)
        assert level == pytest.approx(known, abs=0.001)
        assert task.trivial_at(n_points)["points by angle"] == pytest.approx(level, abs=0.02)

    @pytest.mark.parametrize(("n_points", "accuracy"), [(5, 2 / 3), (10, 7 / 11)])
    def test_an_optimal_tour_in_a_random_direction(self, n_points, accuracy):
        """As docs/tasks.md says: a direction is half of what an accuracy measures."""
        batch = make_task("tsp").sample(4000, n_points, torch.Generator().manual_seed(0))
        backwards = torch.cat([batch.targets[:1], batch.targets[1:-1].flip(0), batch.targets[-1:]])
        named = torch.where(torch.rand(4000) < 0.5, backwards, batch.targets)
        assert (named == batch.targets).float().mean().item() == pytest.approx(accuracy, abs=0.02)


def length(tour):
    return sum(dist(a, b) for a, b in zip(tour, (*tour[1:], tour[0]), strict=True))


class TestGraphs:
    @pytest.mark.parametrize("name", ["shortest_path", "minimum_spanning_tree"])
    def test_shorter_samples_are_padded_in_front(self, name):
        batch = draw(make_task(name, max_nodes=7, max_edges=9))
        for b, first in enumerate(batch.first.tolist()):
            assert not batch.inputs[:first, b].any() and batch.inputs[first:9, b].any(dim=1).all()
        assert torch.equal(batch.rows(slice(3, 7)).first, batch.first[3:7]) and len(batch.first.unique()) > 1

    def parse(self, inputs, n_features):
        """The graph, and its edges in the order of the input; checks that empty steps come first."""
        edges = []
        for x in inputs:
            if x.any():
                ends = hot(x[:n_features]), hot(x[n_features : 2 * n_features])
                edges.append((*ends, round(10 * x[-1].item())))
            else:
                assert not edges
        graph = nx.Graph()
        graph.add_weighted_edges_from(edges)
        assert graph.number_of_edges() == len(edges)  # no pair twice
        assert nx.is_connected(graph) and {weight for *_, weight in edges} <= set(range(1, 11))
        return graph, edges

    @pytest.mark.parametrize("sizes", [(20, 30), (7, 9)])
    def test_shortest_path(self, sizes):
        nodes = set()
        for inputs, target in samples(make_task("shortest_path", max_nodes=sizes[0], max_edges=sizes[1])):
            n_features = 2 * sizes[0]
            graph, _ = self.parse(inputs[: sizes[1]], n_features)
            source, destination = (hot(x) for x in inputs[sizes[1] : sizes[1] + 2])
            assert not inputs[sizes[1] + 2 :].any() and len(inputs) == sizes[1] + 2 + len(target)
            assert [scored(target)] == list(nx.all_shortest_paths(graph, source, destination, weight="weight"))
            nodes.add(graph.number_of_nodes())
        assert nodes == set(range(5, sizes[0] + 1))

    @pytest.mark.parametrize("sizes", [(20, 30), (7, 9)])
    def test_minimum_spanning_tree(self, sizes):
        counts = set()
        for inputs, target in samples(make_task("minimum_spanning_tree", max_nodes=sizes[0], max_edges=sizes[1])):
            graph, edges = self.parse(inputs[: sizes[1]], 2 * sizes[0])
            assert not inputs[sizes[1] :].any() and len(inputs) == sizes[1] + len(target)
            tree = nx.minimum_spanning_tree(graph)
            kruskal = sorted((edge for edge in edges if tree.has_edge(*edge[:2])), key=lambda edge: edge[2])
            assert scored(target) == [node for *ends, _ in kruskal for node in ends]
            counts.add((graph.number_of_nodes(), len(edges)))
        assert min(edges for _, edges in counts) == 6 and max(edges for _, edges in counts) == sizes[1]

    @pytest.mark.parametrize("seed", range(5))
    def test_whether_an_optimum_is_unique(self, seed):
        """On graphs with weights so few that ties are frequent."""
        task = make_task("shortest_path", max_nodes=6, max_edges=9)
        generator = torch.Generator().manual_seed(seed)
        drawn = task.draw_graphs(*task.draw_sizes(30, generator), generator)
        graphs = drawn._replace(weight=torch.where(drawn.weight < FAR, 1 + drawn.weight % 3, FAR))
        ends = torch.tensor([[0, 3]]).expand(30, -1)
        path, tree = shortest_path(graphs, ends, 6), minimum_spanning_tree(graphs, 6)
        for b in range(30):
            graph = self.network(graphs, b)
            assert path.unique[b] == (len(list(nx.all_shortest_paths(graph, 0, 3, weight="weight"))) == 1)
            weight = nx.minimum_spanning_tree(graph).size(weight="weight")
            trees = (
                graph.edge_subgraph(edges)
                for edges in combinations(graph.edges, graph.number_of_nodes() - 1)
                if nx.is_tree(graph.edge_subgraph(edges)) and len(graph.edge_subgraph(edges)) == len(graph)
            )
            assert tree.unique[b] == (sum(tree.size(weight="weight") == weight for tree in trees) == 1)
        assert 0 < path.unique.sum() < 30 and 0 < tree.unique.sum() < 30

    @staticmethod
    def network(graphs: Graphs, b: int):
        graph = nx.Graph()
        for (u, v), weight in zip(graphs.ends[b].tolist(), graphs.weight[b].tolist(), strict=True):
            if weight < FAR:
                graph.add_edge(u, v, weight=weight)
        return graph

    def test_a_random_node(self):
        task = make_task("minimum_spanning_tree")
        batch = draw(task, 2000)
        nodes = batch.inputs[:, :, :80].unflatten(2, (2, 40)).sum(dim=(0, 2)).clamp(max=1)  # [B, 40]
        guess = torch.multinomial(nodes, batch.answer_steps, replacement=True).T
        right = (guess == batch.targets)[batch.targets != IGNORED].float().mean().item()
        assert right == pytest.approx(task.trivial()["random node"], abs=0.005)

    def test_source_then_destination(self):
        task = make_task("shortest_path")
        batch = draw(task, 2000, seed=3)
        source, destination = batch.inputs[30:32, :, :40].argmax(dim=2)
        guess = destination.expand(batch.answer_steps, -1).clone()
        guess[0] = source
        right = (guess == batch.targets)[batch.targets != IGNORED].float().mean().item()
        assert right == pytest.approx(task.trivial()["source, then destination"], abs=0.02)

    def test_edges_by_weight(self):
        task = make_task("minimum_spanning_tree", max_nodes=10, max_edges=15)
        batch, right, n_scored = task.split("test"), 0, 0
        for b in range(batch.size):
            _, edges = self.parse(batch.inputs[:15, b], 20)
            named = [node for *ends, _ in sorted(edges, key=lambda edge: edge[2]) for node in ends]
            answer = scored(batch.targets[:, b])
            right += sum(a == b for a, b in zip(named, answer, strict=False))
            n_scored += len(answer)
        assert right / n_scored == pytest.approx(task.trivial("test")["edges by weight, cycles ignored"])
        assert right / n_scored == pytest.approx(0.887, abs=0.001)
        level = make_task("minimum_spanning_tree").trivial("test")["edges by weight, cycles ignored"]
        assert level == pytest.approx(0.831, abs=0.001)

    def test_fewest_edges(self):
        task = make_task("shortest_path", max_nodes=10, max_edges=15)
        batch, right, n_scored = task.split("test"), 0.0, 0
        for b in range(batch.size):
            graph, _ = self.parse(batch.inputs[:15, b], 20)
            source, destination = (hot(x) for x in batch.inputs[15:17, b])
            answer = scored(batch.targets[:, b])
            paths = [[*path, *[destination] * 9] for path in nx.all_shortest_paths(graph, source, destination)]
            right += sum(a == b for path in paths for a, b in zip(path, answer, strict=False)) / len(paths)
            n_scored += len(answer)
        # Which of several paths the level takes is left to chance.
        assert right / n_scored == pytest.approx(task.trivial("test")["fewest edges, weights ignored"], abs=0.006)
        assert right / n_scored == pytest.approx(0.890, abs=0.006)
        level = make_task("shortest_path").trivial("test")["fewest edges, weights ignored"]
        assert level == pytest.approx(0.844, abs=0.006)

    def test_the_trivial_level_of_a_set_is_that_of_its_samples(self):
        task = make_task("shortest_path", max_nodes=7, max_edges=9)
        levels = [task.trivial(split)["source, then destination"] for split in (None, "valid", "test")]
        targets = task.split("valid").targets
        assert levels[1] == pytest.approx(2000 / (targets != IGNORED).sum().item(), rel=1e-6)
        assert len(set(levels)) == 3


def test_multi_query_associative_recall():
    for inputs, target in samples(make_task("multi_query_associative_recall", pairs=3, vocabulary=8, length=12)):
        shown = [hot(x) for x in inputs[:6]]
        value_of = {key: value - 4 for key, value in zip(shown[::2], shown[1::2], strict=True)}
        assert len(value_of) == 3 == len(set(value_of.values())) and max(value_of) < 4
        asked = []
        for x, answer in zip(inputs[6:], target.tolist(), strict=True):
            if x.any():
                asked.append(hot(x))
                assert answer == value_of[asked[-1]]
            else:
                assert answer == IGNORED
        assert sorted(asked) == sorted(value_of)


def test_any_value_shown():
    task = make_task("multi_query_associative_recall")
    batch = draw(task, 4000)
    shown = batch.inputs[1:16:2].argmax(dim=2) - 32  # [K, B]
    guess = shown.gather(0, torch.randint(8, batch.targets.shape))
    right = (guess == batch.targets)[batch.targets != IGNORED].float().mean().item()
    assert right == pytest.approx(task.trivial()["any value shown"], abs=0.01)


def test_parity():
    for inputs, target in samples(make_task("parity")):
        assert int(target) == sum(hot(x) for x in inputs) % 2


@pytest.mark.parametrize("modulus", [5, 6])
def test_modular_arithmetic(modulus):
    for inputs, target in samples(make_task("modular_arithmetic", modulus=modulus)):
        symbols = [*map(str, range(modulus)), "+", "-", "*"]
        assert int(target) == eval("".join(symbols[hot(x)] for x in inputs)) % modulus


@pytest.mark.parametrize(("modulus", "length"), [(5, 1), (5, 5), (4, 5), (2, 7)])
def test_the_most_likely_value_by_enumeration(modulus, length):
    symbols = [list(map(str, range(modulus))) if i % 2 == 0 else list("+-*") for i in range(length)]
    values = Counter(eval("".join(expression)) % modulus for expression in product(*symbols))
    level = make_task("modular_arithmetic", modulus=modulus).trivial_at(length)["most likely value"]
    assert level == pytest.approx(values.most_common(1)[0][1] / values.total(), abs=1e-6)


def test_the_documentation_names_the_high_trivial_levels():
    text = Path(__file__).parents[1].joinpath("docs/tasks.md").read_text(encoding="utf-8")
    small = {"max_nodes": 10, "max_edges": 15}
    for name, options, split in [
        *((name, options, "test") for name in ("minimum_spanning_tree", "shortest_path") for options in ({}, small)),
        ("tsp", {}, "test"),
        ("tsp", {}, "test_5"),
    ]:
        level = list(make_task(name, **options).trivial(split).values())[-1]
        assert f"{100 * level:.1f} %" in text
