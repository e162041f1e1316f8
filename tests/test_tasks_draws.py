"""What a task draws at random takes every value at every place: a model cannot go by where something stands."""

import pytest
import torch

from relmem.tasks import IGNORED, make_task

SIZE = 2000


def draw(name, **options):
    return make_task(name, **options).batch(SIZE, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["convex_hull", "tsp"])
def test_any_point_may_have_any_label_and_lie_anywhere(name):
    inputs = make_task(name).sample(SIZE, 6, torch.Generator().manual_seed(0)).inputs[:6]
    for labels in inputs[:, :, 3:].argmax(dim=2):
        assert labels.unique().tolist() == [0, 1, 2, 3, 4, 5]
    for coordinate in inputs[:, :, :2].permute(0, 2, 1).flatten(0, 1):
        assert coordinate.min() < 0.02 and coordinate.max() > 0.98


@pytest.mark.parametrize("name", ["shortest_path", "minimum_spanning_tree"])
def test_any_edge_may_come_first_either_way_round_with_any_weight(name):
    task = make_task(name, max_nodes=6, max_edges=9)
    generator = torch.Generator().manual_seed(0)
    graphs = task.draw_graphs(torch.full((SIZE,), 6), torch.full((SIZE,), 9), generator)
    for place in range(9):
        ends = graphs.ends[:, place]
        assert len(ends.unique(dim=0)) == 6 * 5
        assert graphs.weight[:, place].unique().tolist() == list(range(1, 11))


@pytest.mark.parametrize("name", ["shortest_path", "minimum_spanning_tree"])
def test_any_node_may_have_any_features(name):
    batch = draw(name, max_nodes=6, max_edges=9)
    first_edge = batch.inputs[batch.first, torch.arange(SIZE)]
    for end in first_edge[:, :24].split(12, dim=1):
        assert end.argmax(dim=1).unique().tolist() == list(range(12))


def test_any_pair_may_be_asked_for_by_any_letter():
    batch = draw("associative_retrieval")
    letters = batch.inputs[:28:2, :, 10:36].argmax(dim=2)  # [K, B]
    asked = batch.inputs[-1, :, 10:36].argmax(dim=1)
    assert (letters == asked).long().argmax(dim=0).unique().tolist() == list(range(14))
    assert all(len(place.unique()) == 26 for place in letters)


@pytest.mark.parametrize(("name", "columns"), [("nth_farthest", slice(16)), ("priority_sort", slice(32, 33))])
def test_numbers_are_from_minus_one_to_one(name, columns):
    steps = {"nth_farthest": 8, "priority_sort": 20}[name]
    numbers = draw(name).inputs[:steps, :, columns]
    assert (numbers.amin(dim=1) < -0.98).all() and (numbers.amax(dim=1) > 0.98).all()
    assert numbers.mean().abs() < 0.02


def test_any_object_may_be_the_query_at_any_rank():
    inputs = draw("nth_farthest").inputs
    labels, ranks, queries = (inputs[:, :, begin : begin + 8].argmax(dim=2) for begin in (16, 24, 32))
    assert all(len(place.unique()) == 8 for place in labels)
    assert ranks[0].unique().tolist() == queries[0].unique().tolist() == list(range(8))


def test_any_step_may_ask():
    targets = draw("multi_query_associative_recall").targets
    assert ((targets != IGNORED).float().mean(dim=1) > 0.1).all()


def test_any_digit_and_any_operator_may_stand_in_an_expression():
    inputs = make_task("modular_arithmetic").sample(SIZE, 7, torch.Generator().manual_seed(0)).inputs
    for place, symbols in enumerate(inputs.argmax(dim=2)):
        assert symbols.unique().tolist() == ([5, 6, 7] if place % 2 else [0, 1, 2, 3, 4])


@pytest.mark.parametrize(("name", "answers"), [("copy", 20), ("priority_sort", 16)])
def test_bits_are_fair(name, answers):
    targets = make_task(name).split("test").targets
    assert targets.shape[0] == answers
    torch.testing.assert_close(targets.mean(dim=1), torch.full((answers, 32), 0.5), atol=0.06, rtol=0)
