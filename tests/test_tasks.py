"""The contract of a task, checked for every registered task."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from relmem.supervised.trainer import TRAINING_SEED
from relmem.tasks import (
    IGNORED,
    VaryingLengthTask,
    check_task,
    make_task,
    register_task,
    registered_tasks,
    task_options,
)
from relmem.tasks.__main__ import rows
from relmem.tasks.base import Batch, Task

B = 40
VARIANTS = [
    *((name, {}) for name in registered_tasks()),
    ("nth_farthest", {"objects": 4, "features": 8}),
    ("associative_retrieval", {"length": 50}),
    ("relational_associative_recall", {"variant": "as_described"}),
    ("convex_hull", {"order": "coordinates", "max_points": 8}),
    ("shortest_path", {"max_nodes": 7, "max_edges": 9}),
    ("minimum_spanning_tree", {"max_nodes": 7, "max_edges": 9}),
]
every_task = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)


def draw(task, seed=0, size=B):
    return task.batch(size, torch.Generator().manual_seed(seed))


def perfect(task, batch):
    """Logits [S, B, O] of somebody who knows the targets."""
    if task.kind == "bits":
        return batch.targets * 2 - 1
    targets = batch.targets.view(-1, batch.size)
    return functional.one_hot(targets.clamp(min=0), task.output_size).float()


@every_task
def test_a_perfect_answer_scores_perfectly(name, options):
    task = make_task(name, **options)
    batch = draw(task)
    scores = task.evaluate(perfect(task, batch), batch)
    assert scores[task.metric] == (1 if task.higher_is_better else 0) and scores.get("exact", 1) == 1


@pytest.mark.slow
@every_task
def test_tasks_keep_the_contract(name, options):
    task = make_task(name, **options)
    check_task(task)
    assert draw(task).inputs.abs().max() <= 1


class FirstBit(Task):
    kind = "class"
    input_size = output_size = 2

    def batch(self, size, generator):
        bits = torch.randint(2, (6, size), generator=generator)
        return Batch(functional.one_hot(bits, 2).float(), bits[0])


def changed(change):
    """``FirstBit`` with other batches."""

    class Changed(FirstBit):
        def batch(self, size, generator):
            return change(super().batch(size, generator))

    return Changed()


def having(**attributes):
    return type("Having", (FirstBit,), attributes)()


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (having(kind="clas"), "unknown kind of answer 'clas': did you mean 'class'"),
        (having(output_size=0), "output_size must be an integer of at least 1, got 0"),
        (having(input_size=3), r"the inputs of a batch must be torch.float32 \[any, 16, 3\], got .* \[6, 16, 2\]"),
        (changed(lambda b: b._replace(inputs=b.inputs.double())), "must be torch.float32 .* got torch.float64"),
        (changed(lambda b: b._replace(inputs=b.inputs / 0)), "inputs of a batch must be finite"),
        (changed(lambda b: b._replace(inputs=None)), "the inputs of a batch must be a tensor .* got NoneType"),
        (changed(lambda b: b._replace(targets=b.targets + 1)), "targets must be from 0 to 1"),
        (changed(lambda b: b._replace(targets=b.targets.float())), r"targets .* must be torch.int64 \[16\]"),
        (changed(lambda b: b._replace(first=b.targets + 5)), "'first' of a batch must name steps of its inputs"),
        (changed(lambda b: Batch(torch.rand_like(b.inputs), b.targets)), "the same seed gave other samples"),
        (changed(lambda b: Batch(b.inputs * 0, b.targets * 0)), "another seed gave the same samples"),
        (having(kind="classes"), r"targets of a batch must be torch.int64 \[any, 16\]"),
        (having(metric="bit_errors"), "metric, 'bit_errors', first; got \\['accuracy'\\]"),
        (having(higher_is_better=False), "right answers must have a lower 'accuracy' than wrong ones"),
        (having(split_sizes={"test": 10}), "no split 'valid': choose from test"),
        (having(trivial=lambda task, split=None: {"guessing": None}), "trivial level 'guessing' must be a number"),
    ],
)
def test_a_broken_promise_is_named(task, sentence):
    check_task(FirstBit())
    with pytest.raises(ValueError, match=sentence):
        check_task(task)


def in_steps(targets, kind, answer_steps=1):
    """A task with answers of several steps."""
    task = changed(lambda b: b._replace(targets=targets(b.targets)))
    task.kind, task.answer_steps = kind, answer_steps
    if kind == "bits":
        task.metric, task.higher_is_better = "bit_errors", False
    return task


def test_answers_of_several_steps_are_checked():
    check_task(in_steps(lambda bits: bits.expand(3, -1), "classes", 3))
    check_task(in_steps(lambda bits: bits.float().view(1, -1, 1).expand(3, -1, 2), "bits", 3))
    for steps in (2, 7):
        with pytest.raises(ValueError, match=f"the answer of a batch, {steps} steps, must be part of its 6 steps"):
            check_task(in_steps(lambda bits, steps=steps: bits.expand(steps, -1), "classes", 1 if steps == 2 else 9))
    with pytest.raises(ValueError, match="every sample must have a step that is scored"):
        check_task(in_steps(lambda bits: bits.expand(3, -1) * 0 - 1, "classes", 3))
    with pytest.raises(ValueError, match="targets that are bits must be 0 or 1"):
        check_task(in_steps(lambda bits: bits.float().view(1, -1, 1).expand(3, -1, 2) / 2, "bits", 3))


@pytest.mark.slow
@every_task
def test_trivial_levels_lie_between_chance_and_perfection(name, options):
    task = make_task(name, **options)
    for levels in (task.trivial(split) for split in (None, *task.split_sizes)):
        assert levels
        for level in levels.values():
            if task.higher_is_better:
                assert 1 / task.output_size <= level < 1
            else:  # zero where there is nothing to choose: of two items, one of which is the query
                assert 0 <= level <= task.answer_steps * task.output_size / 2


@pytest.mark.parametrize("name", registered_tasks())
def test_fixed_sets_repeat(name, monkeypatch):
    task = make_task(name)
    monkeypatch.setattr(task, "split_sizes", dict.fromkeys(task.split_sizes, B))
    valid, again, other = task.split("valid"), task.split("valid"), task.split("valid", seed=1)
    assert torch.equal(valid.inputs, again.inputs) and torch.equal(valid.targets, again.targets)
    assert valid.inputs.shape != other.inputs.shape or not torch.equal(valid.inputs, other.inputs)
    assert valid.size == B
    with pytest.raises(ValueError, match=r"^no split 'train_set': choose from .*valid, test"):
        task.split("train_set")


@pytest.mark.parametrize("name", registered_tasks())
def test_fixed_sets_are_drawn_apart_from_each_other_and_from_training(name, monkeypatch):
    task, seeds = make_task(name), []
    monkeypatch.setattr(task, "_draw_split", lambda _, generator: seeds.append(generator.initial_seed()))
    for split in task.split_sizes:
        for seed in (0, 1):
            task.split(split, seed)
    assert len(set(seeds)) == len(seeds) == 2 * len(task.split_sizes)
    of_training = range(TRAINING_SEED, TRAINING_SEED + 10**6)  # whatever the seed of the run
    assert not any(seed in of_training for seed in seeds)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_task
def test_batches_are_drawn_on_the_device_of_the_generator(name, options):
    batch = make_task(name, **options).batch(B, torch.Generator("cuda").manual_seed(0))
    assert {part.device.type for part in batch if part is not None} == {"cuda"}


def test_only_tasks_with_an_epoch_have_a_training_set():
    for name in registered_tasks():
        task = make_task(name)
        assert task.fixed == ("train" in task.split_sizes)
    sizes = make_task("associative_retrieval").split_sizes
    assert sizes == {"train": 100_000, "valid": 10_000, "test": 20_000}


def test_rows_select_samples_and_make_floats():
    task = make_task("associative_retrieval")
    stored = task._draw(B, torch.Generator().manual_seed(0))
    assert stored.inputs.dtype == torch.bool
    rows = stored.rows(torch.tensor([3, 1]))
    assert rows.inputs.dtype == torch.float32
    assert torch.equal(rows.inputs[:, 1], stored.inputs[:, 1].float()) and torch.equal(
        rows.targets, stored.targets[[3, 1]]
    )
    bits = draw(make_task("priority_sort"))
    assert torch.equal(bits.rows(slice(2, 5)).targets, bits.targets[:, 2:5])


class Scored(Task):
    """Nothing but a kind of answer to score."""

    def __init__(self, kind):
        self.kind = kind


def test_bit_errors_by_hand():
    targets = torch.zeros(3, 4, 2)
    outputs = torch.full((3, 4, 2), -1.0)
    outputs[0, 1, 0] = outputs[2, 1, 0] = outputs[2, 1, 1] = 1  # three wrong bits, all of one sample
    scores = Scored("bits").evaluate(outputs, Batch(torch.zeros(6, 4, 1), targets))
    assert scores == {"bit_errors": 3 / 4, "exact": 3 / 4}


def test_accuracy_by_hand():
    targets = torch.tensor([[0, 1, 2, 0], [1, IGNORED, IGNORED, IGNORED]])  # five scored steps
    outputs = functional.one_hot(torch.tensor([[0, 1, 2, 0], [2, 0, 0, 0]]), 3).float()  # one of them wrong
    scores = Scored("classes").evaluate(outputs, Batch(torch.zeros(4, 4, 1), targets))
    assert scores == {"accuracy": 4 / 5, "exact": 3 / 4}
    scores = Scored("class").evaluate(outputs[1:], Batch(torch.zeros(4, 4, 1), torch.tensor([2, 0, 1, 0])))
    assert scores == {"accuracy": 3 / 4}


@pytest.mark.parametrize("kind", ["class", "classes"])
def test_a_level_that_is_reached_exactly_is_reached(kind):
    right = torch.arange(1000) < 900
    targets = torch.zeros(1000, dtype=torch.int64)
    outputs = torch.where(right[None, :, None], torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    batch = Batch(torch.zeros(1, 1000, 1), targets if kind == "class" else targets[None])
    assert float(Scored(kind).evaluate(outputs, batch)["accuracy"]) >= 0.9


def test_unscored_steps_do_not_count():
    task = make_task("multi_query_associative_recall")
    batch = draw(task)
    outputs = perfect(task, batch)
    outputs[batch.targets == IGNORED] = torch.randn(task.output_size)
    assert task.evaluate(outputs, batch)["accuracy"] == 1
    assert task.evaluate(outputs, batch)["exact"] == 1


class TestVaryingLength:
    @pytest.mark.parametrize(
        ("name", "seen"),
        [
            ("copy", range(1, 21)),
            ("convex_hull", range(5, 21)),
            ("tsp", range(5, 11)),
            ("relational_associative_recall", range(2, 6)),
            ("parity", range(1, 41)),
            ("modular_arithmetic", range(1, 40, 2)),
        ],
        ids=str,
    )
    def test_training_draws_every_length(self, name, seen, monkeypatch):
        task = make_task(name)
        assert isinstance(task, VaryingLengthTask)
        lengths = []
        monkeypatch.setattr(task, "sample", lambda size, length, generator: lengths.append(length))
        generator = torch.Generator().manual_seed(0)
        for _ in range(800):
            task.batch(1, generator)
        assert set(lengths) == set(seen)

    @pytest.mark.parametrize(
        ("name", "lengths"),
        [
            ("copy", {"valid": 20, "test": 20}),
            ("convex_hull", {"valid": 10, "test": 10, "test_5": 5}),
            ("tsp", {"valid": 10, "test": 10, "test_5": 5}),
            ("parity", {"valid": 40, "test": 40, "test_256": 256}),
            ("modular_arithmetic", {"valid": 39, "test": 39, "test_255": 255}),
        ],
    )
    def test_fixed_sets_have_the_length_of_their_name(self, name, lengths, monkeypatch):
        task = make_task(name)
        monkeypatch.setattr(task, "sample", lambda size, length, generator: length)
        assert {split: task.split(split) for split in task.split_sizes} == lengths

    def test_the_trivial_level_is_the_mean_over_lengths(self):
        task = make_task("copy", max_length=3, bits=4)
        assert task.trivial() == {"guessing": (2 + 4 + 6) / 3}
        assert task.trivial("test") == {"guessing": 6}


class TestRegistry:
    def test_names_and_options(self):
        assert "nth_farthest" in registered_tasks()
        assert list(task_options("nth_farthest")) == ["objects", "features"]

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("nth_farhtest", {}, "unknown task 'nth_farhtest': did you mean 'nth_farthest'?"),
            ("copy", {"bit": 3}, "unknown option of task 'copy' 'bit': did you mean 'bits'?"),
            ("copy", {"bits": 0}, "bits must be an integer of at least 1, got 0"),
            ("copy", {"max_length": 2.5}, "max_length must be an integer of at least 1, got 2.5"),
            ("nth_farthest", {"objects": 1}, "objects must be an integer of at least 2, got 1"),
            ("priority_sort", {"answers": 21}, "answers must be an integer from 1 to 20 (items), got 21"),
            ("associative_retrieval", {"length": 31}, "length must be even, got 31"),
            (
                "relational_associative_recall",
                {"variant": "as_described_"},
                "unknown variant 'as_described_': did you mean 'as_described'?",
            ),
            ("convex_hull", {"max_points": 4}, "max_points must be an integer from 5 to 50, got 4"),
            ("convex_hull", {"order": "coordinate"}, "unknown order 'coordinate': did you mean 'coordinates'?"),
            ("tsp", {"max_points": 13}, "max_points must be an integer from 5 to 12, got 13"),
            (
                "shortest_path",
                {"max_edges": 18},
                "max_edges must be an integer from 19 to 190 (from a path to all pairs of nodes), got 18",
            ),
            (
                "minimum_spanning_tree",
                {"max_nodes": 5},
                "max_edges must be an integer from 4 to 10 (from a path to all pairs of nodes), got 30",
            ),
            (
                "multi_query_associative_recall",
                {"length": 23},
                "length must be an integer of at least 24 (three times pairs), got 23",
            ),
            ("multi_query_associative_recall", {"vocabulary": 63}, "vocabulary must be even, got 63"),
            (
                "parity",
                {"long_length": 40},
                "long_length must be an integer above 40 (max_length), got 40",
            ),
            ("modular_arithmetic", {"max_length": 40}, "max_length and long_length must be odd, got 40 and 255"),
        ],
    )
    def test_errors_are_one_sentence(self, name, options, message):
        with pytest.raises(ValueError) as error:
            make_task(name, **options)
        assert str(error.value) == message

    def test_a_name_is_taken_once(self):
        with pytest.raises(ValueError, match=r"^a task named 'copy' is registered already$"):
            register_task("copy")(Task)


@pytest.mark.slow
def test_the_documentation_shows_the_printed_table():
    assert "\n".join(rows()) in Path(__file__).parents[1].joinpath("docs/tasks.md").read_text(encoding="utf-8")
