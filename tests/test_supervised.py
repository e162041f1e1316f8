"""Supervised training: what is learnt, what a checkpoint brings back, what is said about mistakes."""

import io
import json

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import LinearSchedule

from relmem.agents import Diverged
from relmem.agents.cores import make_core
from relmem.cli import main
from relmem.common.saved import seal
from relmem.supervised import AttentionalLSTM, SequenceModel, SupervisedTrainer, make_memory, memories
from relmem.tasks import IGNORED, Batch, Task, make_task
from relmem.tasks.draw import bits, integers, one_hot


class First(Task):
    """Which symbol came first?"""

    kind, input_size, output_size = "class", 3, 3
    split_sizes = {"valid": 64, "test": 64, "test_more": 32}  # noqa: RUF012

    def batch(self, size, generator):
        symbols = integers(3, (4, size), generator)
        return Batch(one_hot(symbols, 3), symbols[0])


class FixedFirst(First):
    """The same from a fixed training set, kept as bool, of which two samples fill no batch of 16."""

    fixed = True
    split_sizes = {"train": 50, "valid": 64, "test": 64}  # noqa: RUF012

    def _draw_split(self, name, generator):
        batch = super()._draw_split(name, generator)
        return Batch(batch.inputs.bool(), batch.targets)


class Repeat(Task):
    """Repeat one or two vectors of bits."""

    kind, input_size, output_size, answer_steps = "bits", 2, 2, 2
    metric, higher_is_better = "bit_errors", False
    split_sizes = {"valid": 64, "test": 64}  # noqa: RUF012

    def batch(self, size, generator):
        steps = 1 + int(integers(2, (), generator))
        answer = bits((steps, size, 2), generator)
        return Batch(torch.cat([answer, torch.zeros_like(answer)]), answer)


class Reverse(Task):
    """Name the last of two symbols, then the first, unless they are the same."""

    kind, input_size, output_size, answer_steps = "classes", 3, 3, 2
    split_sizes = {"valid": 64, "test": 64}  # noqa: RUF012

    def batch(self, size, generator):
        symbols = integers(3, (2, size), generator)
        targets = torch.stack([symbols[1], torch.where(symbols[0] == symbols[1], IGNORED, symbols[0])])
        return Batch(torch.cat([(shown := one_hot(symbols, 3)), torch.zeros_like(shown)]), targets)


SMALL = {"core": "lstm", "core_kwargs": {"hidden_size": 16}, "optimizer": "adam", "learning_rate": 1e-2}


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("core", ["lstm", "attentional_lstm"])
@pytest.mark.parametrize(("task", "goal"), [(First(), 1.0), (FixedFirst(), 0.9), (Repeat(), 0.0), (Reverse(), 1.0)])
def test_every_kind_of_answer_is_learnt(task, goal, core):
    trainer = SupervisedTrainer(task, **SMALL | {"core": core}, batch_size=32, eval_every=50, stop_at=goal)
    assert trainer.learn(2000) == "converged"
    assert trainer.converged_at is trainer.best_evaluation is trainer.history[-1]
    reached = trainer.test()["test"][task.metric]
    assert reached >= 0.8 if task.higher_is_better else reached <= 0.1


@pytest.mark.parametrize("core", ["stm", "rmc"])
def test_relational_cores_learn_with_the_released_optimizer(core):
    options = {
        "stm": {"preset": "released", "queries": 2, "item_size": 8, "relation_size": 8},
        "rmc": {"slots": 2, "heads": 2, "head_size": 8},
    }[core]
    trainer = SupervisedTrainer(
        First(), core, options, learning_rate=1e-3, batch_size=32, eval_every=50, stop_at=1.0, net_arch=[16]
    )
    assert trainer.learn(1000) == "converged"


@pytest.mark.parametrize("task", [First(), FixedFirst()])
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_a_resumed_training_ends_with_the_same_weights(task, optimizer):
    options = SMALL | {"optimizer": optimizer, "learning_rate": LinearSchedule(1e-2, 0.0, 1.0), "net_arch": [8]}

    def make(seed):
        trainer = SupervisedTrainer(task, **options, batch_size=16, eval_every=10, seed=seed)
        trainer.model.head.append(torch.nn.Dropout(0.2))  # draws at random, as a memory of the user's may
        return trainer

    whole = make(3)
    assert whole.learn(40) == "finished"
    begun = make(3)
    assert begun.learn(40, callback=lambda trainer: trainer.updates < 17) is None
    file = io.BytesIO()
    begun.save(file)
    file.seek(0)
    assert not same(whole.model, begun.model)
    resumed = make(4)
    resumed.restore(file)
    assert resumed.learn(40) == "finished"
    assert same(whole.model, resumed.model) and whole.test() == resumed.test()
    for left, right in zip(whole.history, resumed.history, strict=True):
        assert left | {"seconds": 0} == right | {"seconds": 0}


def test_a_seed_makes_a_training_and_another_seed_another_one():
    losses = []
    for seed in (1, 1, 2):
        trainer = SupervisedTrainer(First(), **SMALL, eval_every=5, seed=seed)
        trainer.learn(5)
        losses.append(trainer.history[0]["train_loss"])
    assert losses[0] == losses[1] != losses[2]


def test_the_seed_is_that_of_the_weights_and_of_the_samples():
    one, again, other = (SupervisedTrainer(First(), **SMALL, seed=seed) for seed in (1, 1, 2))
    assert same(one.model, again.model) and not same(one.model, other.model)
    inputs = [trainer._next_batch().inputs for trainer in (one, again, other)]
    assert torch.equal(inputs[0], inputs[1]) and not torch.equal(inputs[0], inputs[2])


def test_an_epoch_shows_every_sample_at_most_once_and_in_a_new_order():
    trainer = SupervisedTrainer(FixedFirst(), **SMALL, batch_size=16)
    trainer._training_set = Batch(torch.arange(50).view(1, 50, 1), torch.arange(50))
    first, second = (torch.cat([trainer._next_batch().targets for _ in range(3)]) for _ in range(2))
    assert trainer.updates_per_epoch == trainer.eval_every == 3
    assert len(first.unique()) == len(second.unique()) == 48 and not torch.equal(first, second)


def test_the_best_weights_are_tested_and_the_latest_kept():
    trainer = SupervisedTrainer(First(), **SMALL, batch_size=32, eval_every=50, stop_at=1.0)
    trainer.learn(2000)
    best = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    zeroed = trainer.evaluate(First().split("test"))["accuracy"]
    assert trainer.test()["test"]["accuracy"] > 0.9 > zeroed
    assert set(trainer.test()) == {"test", "test_more"}
    assert all(parameter.eq(0).all() for parameter in trainer.model.parameters())
    assert all(torch.equal(value, best[name]) for name, value in trainer.best.items())


def test_the_best_weights_are_those_of_the_best_evaluation():
    trainer = SupervisedTrainer(First(), **SMALL, eval_every=1, eval_size=5)
    scores, weights = iter([0.2, 0.9, 0.5]), []

    def evaluate(data):
        assert data.size == 5
        weights.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        return {"loss": 1.0, "accuracy": next(scores)}

    trainer.evaluate = evaluate
    assert trainer.learn(3) == "finished" and trainer.best_evaluation["update"] == 2
    assert all(torch.equal(value, weights[1][name]) for name, value in trainer.best.items())


def save_sealed(content, file):
    """As trainers save, with a checksum."""
    torch.save(content, archive := io.BytesIO())
    sealed = seal(archive.getvalue())
    file.write(sealed) if isinstance(file, io.BytesIO) else file.write_bytes(sealed)


@pytest.mark.parametrize("name", memories())
def test_a_saved_model_answers_with_the_best_weights(name, tmp_path):
    options = {"embedding_size": 4, "net_arch": [8], "learning_rate": 1e-2, "eval_every": 1, "precision": "fp32"}
    trainer = SupervisedTrainer(First(), name, **options)
    trainer.learn(3)
    trainer.best = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    data = First().split("test")
    expected = trainer.evaluate(data)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(1.0)
    assert trainer.evaluate(data) != expected
    trainer.save(tmp_path / "model.pt")
    for path in (tmp_path, tmp_path / "model.pt"):
        model = SequenceModel.load(path)
        assert not model.training
        assert First().evaluate(model(data.inputs, 1), data)["accuracy"] == expected["accuracy"]
    with pytest.raises(ValueError, match="no saved model at"):
        SequenceModel.load(tmp_path / "modle.pt")
    save_sealed(torch.zeros(3), tmp_path / "tensor.pt")
    (tmp_path / "text.pt").write_text("no model")
    for file, fault in (
        ("tensor.pt", "holds no model of a supervised training"),
        ("text.pt", "is damaged, or holds no"),
    ):
        with pytest.raises(ValueError, match=f"{file}' {fault}"):
            SequenceModel.load(tmp_path / file)


def test_a_model_that_cannot_be_built_again_is_not_loaded(tmp_path):
    trainer = SupervisedTrainer(First(), "lstm")
    trainer.model.arguments = None  # as of options that are no plain values
    trainer.save(tmp_path / "model.pt")
    with pytest.raises(ValueError, match="does not say how to build its model"):
        SequenceModel.load(tmp_path)


def test_numbers_of_numpy_do_no_harm(tmp_path):
    trainer = SupervisedTrainer(First(), "stm", {"queries": np.int64(2)}, net_arch=np.array([5, 4]))
    trainer.save(tmp_path / "model.pt")
    trainer.restore(tmp_path / "model.pt")
    assert SequenceModel.load(tmp_path).arguments["memory_kwargs"] == {"queries": 2}


@pytest.mark.parametrize(("name", "kind"), [("rmsprop", torch.optim.RMSprop), ("adam", torch.optim.Adam)])
def test_the_optimizer_is_as_it_was_asked_for(name, kind):
    options = SMALL | {"optimizer": name, "learning_rate": LinearSchedule(0.01, 0.0, 1.0)}
    trainer = SupervisedTrainer(First(), **options, alpha=0.8, momentum=0.7, eval_every=1)
    trainer.learn(4)
    assert type(trainer.optimizer) is kind
    assert [entry["learning_rate"] for entry in trainer.history] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    if name == "rmsprop":
        (group,) = trainer.optimizer.param_groups
        assert (group["alpha"], group["momentum"]) == (0.8, 0.7)


def test_metrics_are_those_of_all_samples_at_once():
    trainer = SupervisedTrainer(Reverse(), **SMALL, batch_size=5)  # does not divide the set
    data = Reverse().split("valid")
    outputs = trainer.model(data.inputs, 2)
    expected = Reverse().evaluate(outputs, data)["accuracy"].item()
    scores = trainer.evaluate(data)
    assert scores["accuracy"] == expected
    assert scores["loss"] == pytest.approx(trainer.model.loss(outputs, data.targets).item(), rel=1e-5)


def test_masked_steps_do_not_count_in_the_loss():
    model = SequenceModel(3, 3, "classes", "lstm", {"hidden_size": 4})
    logits, targets = torch.randn(2, 6, 3), torch.randint(3, (2, 6))
    targets[1, 2:] = IGNORED
    kept = torch.cat([logits[0], logits[1, :2]]).log_softmax(1)
    expected = -kept[torch.arange(8), torch.cat([targets[0], targets[1, :2]])].mean()
    torch.testing.assert_close(model.loss(logits, targets), expected)


def test_the_largest_gradient_is_clipped_by_value_and_by_norm():
    norms = {}
    for name, limit in (("none", None), ("value", 1e-3), ("norm", 1e-3)):
        clips = {} if limit is None else {f"max_grad_{name}": limit}
        trainer = SupervisedTrainer(First(), **SMALL, **{"max_grad_value": None} | clips)
        trainer._update(1.0)
        grads = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
        norms[name] = (grads.abs().max().item(), grads.norm().item())
    trainer = SupervisedTrainer(First(), **SMALL, max_grad_value=1e-3, max_grad_norm=1e-3)
    trainer._update(1.0)
    both = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    assert norms["none"][0] > 2e-3
    # First by value, which makes many elements equal, then by norm, which keeps them so.
    assert both.norm().item() == pytest.approx(1e-3, rel=1e-3) and (both.abs() > 0.999 * both.abs().max()).sum() > 1
    assert norms["value"][0] == pytest.approx(1e-3)
    assert norms["norm"][1] == pytest.approx(1e-3, rel=1e-3)


def test_time_ends_a_training():
    trainer = SupervisedTrainer(First(), **SMALL, eval_every=5)
    assert trainer.learn(10**9, max_minutes=1e-4) == "out of time"
    assert trainer.history[-1]["update"] == trainer.updates


def test_a_model_that_is_not_finite_makes_no_update_and_is_neither_best_nor_saved():
    trainer = SupervisedTrainer(First(), **SMALL, eval_every=5)
    torch.nn.init.constant_(trainer.model.memory.out.bias, float("nan"))
    assert trainer.learn(100) == "diverged" == trainer.outcome(100) and trainer.updates == 0
    assert trainer.history[0]["valid_accuracy"] >= 0 and trainer.best == {} and trainer.best_evaluation is None
    with pytest.raises(Diverged, match="not finite"):
        trainer.save(io.BytesIO())


class Rising:
    """A learning rate that is fine at first."""

    def __init__(self, last):
        self.last = last

    def __call__(self, remaining):
        return self.last if remaining <= 0.5 else 1e-3


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize("rate", [1e30, 1e37])
@pytest.mark.parametrize("begin", [0, 10])
def test_only_finite_weights_are_trained_and_saved(optimizer, rate, begin, tmp_path):
    options = SMALL | {"optimizer": optimizer, "learning_rate": Rising(rate) if begin else rate}
    trainer = SupervisedTrainer(
        make_task("parity", max_length=8, long_length=9), **options, batch_size=8, max_grad_norm=None, eval_every=5
    )
    saved = []

    def save(trainer):
        saved.append(tmp_path / f"{len(saved)}.pt")
        trainer.save(saved[-1])

    assert trainer.learn(20, callback=save) == "diverged" and begin <= trainer.updates < begin + 3
    for file in saved:
        assert all(parameter.abs().max() < 100 for parameter in SequenceModel.load(file).parameters())
    assert len(saved) == trainer.updates and all(value.abs().max() < 100 for value in trainer.best.values())
    assert trainer.outcome(20) == trainer.learn(20) == "diverged"
    with pytest.raises(Diverged, match="not finite"):
        trainer.save(tmp_path / "diverged.pt")


def test_a_run_whose_rate_is_far_too_high_says_so_and_leaves_no_weights_that_are_not_finite(tmp_path, capfd):
    flags = "--training.batch_size 8 --training.learning_rate 1e30 --training.max_grad_norm null --total_updates 20"
    small = "--core.item_size 8 --core.relation_size 8 --head.net_arch null --training.eval_size 50 --task.max_length 8"
    run = ["train", "--config", "tasks/parity_stm", *flags.split(), *small.split(), "--run_dir", str(tmp_path / "run")]
    assert main(run) == 1
    assert "loss" in (last := capfd.readouterr().err.splitlines()[-1]) and "learning_rate may help" in last
    results = json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=pytest.fail)
    assert results["outcome"] == "diverged" and results["test"] is None and results["history"][-1]["train_loss"] is None
    for file in (tmp_path / "run").rglob("*.pt"):
        assert all(parameter.isfinite().all() for parameter in SequenceModel.load(file).parameters())


def test_a_gradient_that_is_not_finite_is_not_followed():
    trainer = SupervisedTrainer(First(), **SMALL, eval_every=5, max_grad_value=None)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.model.memory.out.bias.register_hook(lambda grad: grad / 0)
    assert trainer.learn(100) == "diverged" and trainer.updates == 0
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    state = trainer.optimizer.state_dict()["state"]
    assert all(value.isfinite().all() for buffers in state.values() for value in buffers.values())


@pytest.mark.parametrize("where", ["model", "best"])
def test_weights_that_are_not_finite_are_not_loaded(tmp_path, where):
    trainer = SupervisedTrainer(First(), **SMALL, eval_every=5)
    trainer.learn(5)
    trainer.save(tmp_path / "model.pt")
    saved = torch.load(tmp_path / "model.pt")
    saved[where]["memory.out.bias"] = torch.full_like(saved[where]["memory.out.bias"], float("inf"))
    save_sealed(saved, tmp_path / "model.pt")
    if where == "best":
        with pytest.raises(ValueError, match=r"model.pt' holds weights that are not finite"):
            SequenceModel.load(tmp_path)
    other = SupervisedTrainer(First(), **SMALL)
    before = {name: value.clone() for name, value in other.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"model.pt' holds weights that are not finite"):
        other.restore(tmp_path / "model.pt")
    assert all(torch.equal(value, before[name]) for name, value in other.model.state_dict().items())
    assert other.updates == 0


def test_the_time_of_a_restored_training_counts(tmp_path):
    trainer = SupervisedTrainer(First(), **SMALL)
    trainer.seconds = 600.0
    trainer.save(tmp_path / "model.pt")
    resumed = SupervisedTrainer(First(), **SMALL)
    resumed.restore(tmp_path / "model.pt")
    assert resumed.learn(5, max_minutes=5) == "out of time" and resumed.updates == 0
    assert resumed.learn(5, max_minutes=15) == "finished" and 600 < resumed.seconds < 900


def test_a_callback_ends_a_training_by_false_alone():
    trainer = SupervisedTrainer(First(), **SMALL)
    assert trainer.learn(3, callback=lambda _: None) == "finished"
    assert trainer.learn(9, callback=lambda _: False) is None and trainer.updates == 4


def test_evaluations_are_an_epoch_or_500_updates_apart():
    assert SupervisedTrainer(FixedFirst(), **SMALL, batch_size=20).eval_every == 2
    assert SupervisedTrainer(First(), **SMALL).eval_every == 500


def test_the_layers_around_a_memory():
    model = SequenceModel(40, 3, "class", "lstm", {"hidden_size": 7}, embedding_size=50, net_arch=[8, 9])
    assert model.embedding.weight.std().item() == pytest.approx(1, abs=0.1)
    assert (model.memory.input_size, model.memory.output_size) == (50, 7)
    assert [str(layer) for layer in model.head[:4]] == [
        "Linear(in_features=7, out_features=8, bias=True)",
        "ReLU()",
        "Linear(in_features=8, out_features=9, bias=True)",
        "ReLU()",
    ]
    assert model.head[4].out_features == 3 and len(model.head) == 5
    assert SequenceModel(40, 3, "class", "lstm", {"hidden_size": 7}).memory.output_size == 3


def test_evaluation_is_without_dropout():
    trainer = SupervisedTrainer(First(), **SMALL)
    trainer.model.head = torch.nn.Dropout(0.5)
    data = First().split("valid")
    assert trainer.evaluate(data) == trainer.evaluate(data)
    assert trainer.model.training


def test_a_checkpoint_of_another_device_goes_on_with_other_samples():
    trainer, file = SupervisedTrainer(First(), **SMALL, device="cpu"), io.BytesIO()
    trainer.learn(3)
    trainer.save(file)
    state = torch.load(io.BytesIO(file.getvalue()))
    state["generator"] = state["generator"][:16]  # as long as CUDA's
    save_sealed(state, file := io.BytesIO())
    file.seek(0)
    other = SupervisedTrainer(First(), **SMALL, device="cpu")
    other.restore(file)
    assert other.learn(6) == "finished" and other.updates == 6
    assert other._generator.initial_seed() == trainer._generator.initial_seed() + 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("core", memories())
def test_training_on_cuda(core):
    trainers = [SupervisedTrainer(Reverse(), core, device="cuda", eval_every=5) for _ in range(2)]
    trainers[0].learn(10)
    file = io.BytesIO()
    trainers[0].save(file)
    file.seek(0)
    trainers[1].restore(file)
    assert trainers[1].test() == trainers[0].test() and trainers[1].learn(15) == "finished"


def test_only_the_core_runs_in_bf16():
    trainer = SupervisedTrainer(First(), "stm", {"queries": 2, "item_size": 64}, precision="bf16", net_arch=[8])
    other = SupervisedTrainer(First(), "stm", {"queries": 2, "item_size": 64}, precision="fp32", net_arch=[8])
    assert other.model.autocast_dtype is None and trainer.model.autocast_dtype == torch.bfloat16
    inputs = First().split("valid").inputs
    left, right = trainer.model(inputs, 1), other.model(inputs, 1)
    assert left.dtype == torch.float32 and not torch.equal(left, right)
    torch.testing.assert_close(left, right, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", [name for name in memories() if name != "attentional_lstm"])
def test_the_answer_is_what_the_core_gives_at_the_last_steps(name):
    model = SequenceModel(5, 3, "bits", name, embedding_size=4)
    inputs = torch.randn(6, 2, 5)
    core, x = model.memory, model.embedding(inputs)
    outputs, _ = core(x, core.initial_state(2), torch.zeros(6, 2, dtype=torch.bool))
    torch.testing.assert_close(model(inputs, 2), outputs[-2:])


@pytest.mark.parametrize("kind", ["class", "classes"])
@pytest.mark.parametrize("name", memories())
def test_nothing_before_a_sample_has_an_influence(name, kind):
    steps = 1 if kind == "class" else 2
    model = SequenceModel(5, 3, kind, name).double()
    inputs = torch.randn(8, 3, 5, dtype=torch.float64)
    first = torch.tensor([2, 0, 5])
    together = model(inputs, steps, first)
    for b, begin in enumerate(first.tolist()):
        torch.testing.assert_close(together[:, b], model(inputs[begin:, b : b + 1], steps)[:, 0])


def test_neither_training_nor_evaluation_looks_at_what_is_before_a_sample():
    task = make_task("shortest_path", max_nodes=6, max_edges=9)
    data = task.batch(12, torch.Generator().manual_seed(0))
    padding = (torch.arange(len(data.inputs))[:, None] < data.first)[:, :, None]
    losses = []
    for inputs in (data.inputs, torch.where(padding, torch.randn_like(data.inputs), data.inputs)):
        trainer = SupervisedTrainer(task, **SMALL, batch_size=12, eval_every=2)
        trainer._next_batch = lambda inputs=inputs: data._replace(inputs=inputs)
        trainer.learn(2)
        losses.append((trainer.history[0]["train_loss"], trainer.evaluate(data._replace(inputs=inputs))))
    assert padding.any() and losses[0] == losses[1]


def test_attention_reads_the_inputs_but_not_the_blank_steps():
    inputs = torch.randn(6, 2, 5)
    sequence, single = (SequenceModel(5, 3, kind, "attentional_lstm", {"hidden_size": 8}) for kind in ("bits", "class"))
    torch.testing.assert_close(sequence(inputs, 2), sequence.memory(inputs[:4], 2))
    torch.testing.assert_close(single(inputs, 1), single.memory(inputs, 1))


@pytest.mark.parametrize("steps", [1, 3])
def test_attention_by_hand(steps):
    model = AttentionalLSTM(2, hidden_size=3, attention_size=4).double()
    x = torch.randn(5, 1, 2, dtype=torch.float64)
    encoded, (hidden, cell) = model.encoder(x)
    hidden, cell, answer = hidden[0], cell[0], []
    for _ in range(steps):
        query = model.query.weight @ hidden[0] + model.query.bias
        scores = [model.score.weight[0] @ torch.tanh(model.key.weight @ h[0] + query) for h in encoded]
        weights = torch.stack(scores).softmax(0)
        context = sum(weight * h for weight, h in zip(weights, encoded, strict=True))
        hidden, cell = model.decoder(context, (hidden, cell))
        answer.append(torch.cat([hidden, context], dim=1))
    torch.testing.assert_close(model(x, steps), torch.stack(answer))


def test_memories_are_the_cores_and_the_baseline():
    assert type(make_memory("lstm", 3, hidden_size=4)) is type(make_core("lstm", 3, hidden_size=4))
    assert isinstance(make_memory("attentional_lstm", 3), AttentionalLSTM)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"core": "atentional_lstm"}, "unknown core 'atentional_lstm': did you mean 'attentional_lstm'"),
        (
            {"core": "attentional_lstm", "core_kwargs": {"hiden_size": 3}},
            "unknown option of core 'attentional_lstm' 'hiden_size': did you mean 'hidden_size'",
        ),
        ({"core": "attentional_lstm", "core_kwargs": {"hidden_size": 0}}, "hidden_size must be an integer of at least"),
        ({"optimizer": "rmsprob"}, "unknown optimizer 'rmsprob': did you mean 'rmsprop'"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"eval_size": 0}, "eval_size must be an integer of at least 1.* got 0"),
        ({"embedding_size": 0}, "embedding_size must be an integer of at least 1.* got 0"),
        ({"net_arch": [8, 0]}, "net_arch must be .* integer of at least 1.* got \\[8, 0\\]"),
        ({"learning_rate": -1.0}, "learning_rate must be a number of at least 0.* got -1.0"),
        ({"learning_rate": "lin_x"}, "learning_rate must be a number.* got 'lin_x'"),
        ({"learning_rate": "lin_-1"}, "learning_rate must be a number.* got 'lin_-1'"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be a number above 0.* got 0.0"),
        ({"seed": None}, "seed must be an integer.* got None"),
        ({"batch_size": 51}, "batch_size .*1 to 50 .*training set.*, got 51"),
        ({"stop_at": 99}, "stop_at must be a number from 0 to 1.* got 99"),
        ({"precision": "bf17"}, "unknown precision 'bf17': did you mean 'bf16'"),
    ],
)
def test_mistakes_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        SupervisedTrainer(FixedFirst(), **SMALL | {"core_kwargs": {}} | options)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    trainer = SupervisedTrainer(First(), **SMALL)
    trainer.save(tmp_path / "other.pt")
    for other in (SMALL | {"core": "gru"}, SMALL | {"optimizer": "rmsprop"}):
        with pytest.raises(ValueError, match=r"checkpoint '.*other.pt' is of another model or optimizer"):
            SupervisedTrainer(First(), **other).restore(tmp_path / "other.pt")
    save_sealed(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match=r"tensor.pt' holds no model"):
        trainer.restore(tmp_path / "tensor.pt")
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"broken.pt' is damaged, or holds no saved model"):
        trainer.restore(tmp_path / "broken.pt")


def test_a_task_without_a_test_set_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(First, "split_sizes", {"valid": 64, "test_more": 32})
    with pytest.raises(
        ValueError, match=r"^a task needs the fixed sets valid and test, but this has valid, test_more$"
    ):
        SupervisedTrainer(First(), **SMALL)
