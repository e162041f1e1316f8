"""Training on a task from the command line: options, the run folder, resuming, stopping."""

import json
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from relmem.agents import SequenceModel, SupervisedTrainer
from relmem.cli import main
from relmem.cli.config_files import shipped_configs
from relmem.cli.options import parse
from relmem.common.values import write
from relmem.experiment import folder as run_folder
from relmem.experiment import task as task_job
from relmem.experiment.task import TaskJob
from relmem.tasks import make_task

TINY = ["--task.name", "nth_farthest", "--task.objects", "3", "--task.features", "2", "--core.name", "lstm"]
RUN = ["train", *TINY, "--core.hidden_size", "8", "--training.eval_every", "10", "--training.eval_size", "50"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "task"
    assert main([*RUN, "--total_updates", "25", "--seed", "3", "--run_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def copied(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "run"))


def trainer_of(folder: Path, checkpoint: Path | None = None) -> SupervisedTrainer:
    job = TaskJob(parse(["--config", str(folder / "config.yaml")]).config)
    job.prepare(checkpoint)
    return job.learner


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(tag)]


def test_a_run_folder_holds_all_there_is_to_know(run):
    config = parse(["--config", str(run / "config.yaml")]).config
    assert [config[key] for key in ("total_updates", "seed", "training.eval_every")] == [25, 3, 10]
    assert config.as_dict()["task"] == {"name": "nth_farthest", "objects": 3, "features": 2}
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((run / "results.json").read_text())
    assert results["commands"] == (run / "command.txt").read_text().splitlines()
    assert (
        results["kind"] == "task"
        and results["outcome"] == "finished"
        and results["seed"] == 3
        and results["config"] == config.as_dict()
    )
    assert [entry["update"] for entry in results["history"]] == [10, 20, 25]
    assert (results["updates"], results["samples"]) == (25, 25 * 128)
    assert results["trivial"]["test"] == {"ignoring the vectors": 2 / 3} and results["metric"] == "accuracy"
    best = max(results["history"], key=lambda entry: entry["valid_accuracy"])
    assert results["best"]["updates"] == best["update"] and results["converged"] is None


def test_results_are_those_of_the_saved_model(run):
    trainer = trainer_of(run, run / "model.pt")
    results = json.loads((run / "results.json").read_text())
    assert trainer.test() == results["test"] and trainer.history == results["history"]
    assert results["parameters"] == sum(p.numel() for p in trainer.model.parameters())


def test_tensorboard_has_the_metric_and_the_trivial_level_beside_it(run):
    assert [step for step, _ in curve(run, "valid/accuracy")] == [10, 20, 25]
    trivial = curve(run / "trivial" / "ignoring the vectors", "valid/accuracy")
    assert trivial == [(step, pytest.approx(2 / 3)) for step in (10, 20, 25)]
    tags = set(EventAccumulator(str(run)).Reload().Tags()["scalars"])
    assert "_hparams_/experiment" in EventAccumulator(str(run)).Reload().summary_metadata
    assert {"valid/loss", "train/loss", "train/learning_rate", "time/updates_per_second"} <= tags


def test_a_run_beyond_its_first_end_has_the_weights_of_one_that_never_ended(copied, tmp_path):
    assert main([*RUN, "--total_updates", "40", "--seed", "3", "--run_dir", str(tmp_path / "whole")]) == 0
    assert main(["train", "--resume", str(copied), "--total_updates", "40"]) == 0
    whole, resumed = (torch.load(folder / "model.pt")["model"] for folder in (tmp_path / "whole", copied))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    results = json.loads((copied / "results.json").read_text())
    assert len(results["commands"]) == 2 and results["updates"] == 40
    assert [step for step, _ in curve(copied, "valid/accuracy")] == [10, 20, 25, 30, 40]


def test_resuming_writes_down_command_and_commit(copied, monkeypatch):
    monkeypatch.setattr(run_folder, "commit", lambda: "abc1234")
    assert main(["train", "--resume", str(copied), "--total_updates", "30"]) == 0
    assert (copied / "versions.txt").read_text().splitlines()[-1] == "# relmem at commit abc1234 (resumed)"
    results = json.loads((copied / "results.json").read_text())
    assert len(results["commands"]) == 2 and results["versions"][-1].endswith("(resumed)")


def test_resuming_a_finished_run_says_so(copied, capsys):
    before = (copied / "model.pt").stat().st_mtime_ns
    assert main(["train", "--resume", str(copied)]) == 0
    assert "is over: finished after 25 of 25 updates" in capsys.readouterr().out
    assert (copied / "model.pt").stat().st_mtime_ns == before


def test_curves_behind_the_checkpoint_are_drawn_once(copied, tmp_path):
    trainer = trainer_of(copied)
    trainer.learn(10)
    trainer.save(copied / "model.pt")  # as if killed after the checkpoint of 10 updates
    assert main(["train", "--resume", str(copied)]) == 0
    for folder in (copied, copied / "trivial" / "ignoring the vectors"):
        assert [step for step, _ in curve(folder, "valid/accuracy")] == [10, 20, 25]


def test_a_raised_limit_is_remembered(copied):
    assert main(["train", "--resume", str(copied), "--total_updates", "30", "--max_minutes", "5"]) == 0
    config = parse(["--config", str(copied / "config.yaml")]).config
    assert (config["total_updates"], config["max_minutes"]) == (30, 5)
    assert json.loads((copied / "results.json").read_text())["config"]["max_minutes"] == 5


def test_a_diverged_run_leaves_no_model_and_json_that_every_parser_reads(tmp_path, monkeypatch, capfd):
    prepare = TaskJob.prepare

    def diverging(job, checkpoint):
        prepare(job, checkpoint)
        torch.nn.init.constant_(job.learner.model.memory.out.bias, float("nan"))

    monkeypatch.setattr(TaskJob, "prepare", diverging)
    assert main([*RUN, "--total_updates", "25", "--run_dir", str(tmp_path / "run")]) == 1
    assert "not finite" in capfd.readouterr().err.splitlines()[-1] and not list((tmp_path / "run").rglob("*.pt"))
    results = json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=pytest.fail)
    assert results["outcome"] == "diverged" and results["best"] is None and results["test"] is None
    assert results["history"][0]["train_loss"] is None


def test_a_stop_during_the_final_test_leaves_that_for_later(tmp_path, monkeypatch):
    monkeypatch.setattr(SupervisedTrainer, "test", lambda trainer, size: signal.raise_signal(signal.SIGINT))
    folder = tmp_path / "run"
    assert main([*RUN, "--total_updates", "10", "--run_dir", str(folder)]) == 128 + signal.SIGINT
    assert json.loads((folder / "results.json").read_text())["test"] is None
    monkeypatch.undo()
    assert main(["train", "--resume", str(folder)]) == 0
    assert json.loads((folder / "results.json").read_text())["test"]["test"]["accuracy"] >= 0


def test_the_loss_is_drawn_long_before_an_evaluation(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(task_job, "LOGGED_SECONDS", 0.0)
    monkeypatch.setattr(task_job, "SHOWN_SECONDS", 0.0)
    monkeypatch.setattr(task_job, "Progress", partial(task_job.Progress, seconds=0.0))
    assert main([*RUN, "--total_updates", "12", "--run_dir", str(tmp_path / "run")]) == 0
    points = curve(tmp_path / "run", "train/loss")
    assert [step for step, _ in points] == list(range(1, 13)) and all(value > 0 for _, value in points)
    assert f"loss {points[2][1]:.4g}, accuracy -" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{", "{}"])
def test_results_that_are_not_whole_are_written_again(copied, content):
    (copied / "results.json").write_text(content)
    assert main(["train", "--resume", str(copied)]) == 0
    assert json.loads((copied / "results.json").read_text())["test"]["test"]["accuracy"] >= 0


@pytest.mark.parametrize(
    ("owner", "name"), [(run_folder, "save"), (TaskJob, "describe"), (task_job, "draw_task_curve")]
)
def test_a_stop_after_the_training_loses_nothing(owner, name, tmp_path, monkeypatch):
    function = getattr(owner, name)

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return function(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    folder = tmp_path / "run"
    assert main([*RUN, "--total_updates", "10", "--run_dir", str(folder)]) == 128 + signal.SIGTERM
    assert json.loads((folder / "results.json").read_text())["test"] is not None
    assert (folder / "model.pt").exists() and (folder / "learning_curve.png").exists()


def test_a_run_is_not_trained_twice_at_once(copied, capfd):
    other = run_folder.RunFolder(copied)
    other.hold()
    assert main(["train", "--resume", str(copied), "--total_updates", "30"]) == 2
    assert "is being trained by another process" in capfd.readouterr().err
    other.release()
    assert main(["train", "--resume", str(copied), "--total_updates", "30"]) == 0


def test_a_stopped_run_is_saved_untested_and_goes_on(tmp_path, monkeypatch):
    log = task_job.Watch._log

    def stop_at_the_first_evaluation(watch, trainer):
        log(watch, trainer)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(task_job.Watch, "_log", stop_at_the_first_evaluation)
    folder = tmp_path / "run"
    assert main([*RUN, "--total_updates", "25", "--run_dir", str(folder)]) == 128 + signal.SIGINT
    results = json.loads((folder / "results.json").read_text())
    assert (results["outcome"], results["test"], results["updates"]) == ("stopped", None, 10)
    monkeypatch.undo()
    assert main(["train", "--resume", str(folder)]) == 0
    assert json.loads((folder / "results.json").read_text())["test"]["test"]["accuracy"] >= 0


def test_checkpoints_are_written_on_the_way_and_can_be_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(run_folder, "FIRST_CHECKPOINT_SECONDS", 0.0)
    folder = tmp_path / "run"
    assert main([*RUN, "--total_updates", "5", "--run_dir", str(folder)]) == 0
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        f"step_{step:012d}.pt" for step in (3, 4, 5)
    ]
    (folder / "model.pt").unlink()
    assert main(["train", "--resume", str(folder), "--total_updates", "6"]) == 0
    assert torch.load(folder / "model.pt")["updates"] == 6


def test_when_a_run_converged_stands_in_its_results(tmp_path):
    assert main([*RUN, "--training.stop_at", "0", "--run_dir", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["outcome"] == "converged" and results["converged"]["updates"] == results["updates"] == 10


def test_a_core_and_a_task_of_the_users_own_by_module(tmp_path):
    (tmp_path / "things.py").write_text(
        "from relmem.agents import register_core\n"
        "from relmem.agents.cores import GRUCore\n"
        "from relmem.tasks import Copy, register_task\n"
        "register_core('my_core')(type('MyCore', (GRUCore,), {}))\n"
        "register_task('my_task')(type('MyTask', (Copy,), {}))\n"
    )
    flags = ["--task.name", "things:my_task", "--task.bits", "3", "--core.name", "things:my_core"]
    flags += ["--core.hidden_size", "4", "--smoke"]
    relmem = [sys.executable, "-P", "-c", "from relmem.cli import main; raise SystemExit(main())", "train"]
    for words in ([*flags, "--run_dir", "run"], ["--resume", "run", "--total_updates", "4"]):
        result = subprocess.run([*relmem, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["core"] == "things:my_core"


def test_the_experiments_that_should_be_there_are():
    tasks = ("associative_retrieval", "nth_farthest", "nth_farthest_4x8", "copy", "priority_sort")
    tasks += ("relational_associative_recall", "convex_hull", "tsp", "shortest_path", "minimum_spanning_tree")
    tasks += ("multi_query_associative_recall", "parity", "modular_arithmetic")
    assert {f"tasks/{task}_stm" for task in tasks} | {"tasks/nth_farthest_rmc"} <= set(shipped_configs())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("copy", 1_170_965),
        ("nth_farthest", 2_012_813),
        ("convex_hull", 2_010_395),
        ("relational_associative_recall", 684_259),
        ("associative_retrieval", 1_006_219),
    ],
)
def test_the_configs_hold_the_published_models(name, count):
    config = parse(["--config", f"tasks/{name}_stm"]).config
    task = make_task(config["task.name"], **config.group("task"))
    model = SequenceModel(
        *(task.input_size, task.output_size, task.kind, "stm"), config.group("core"), config["head.embedding_size"]
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_a_flag_wins_over_the_file_and_another_task_drops_its_options(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("task: {name: nth_farthest, objects: 4}\ncore: {item_size: 12}\n")
    with file.open("a") as more:
        more.write("training: {batch_size: 16, stop_at: 0.99}\n")
    config = parse(["--config", str(file), "--training.batch_size", "8"]).config
    assert [config[key] for key in ("task.objects", "core.item_size", "training.batch_size")] == [4, 12, 8]
    other = parse(["--config", str(file), "--task.name", "copy", "--core.name", "attentional_lstm"]).config
    assert config["training.stop_at"] == 0.99 and other["training.stop_at"] is None  # in units of the metric
    assert other.group("task") == parse(["--task.name", "copy"]).config.group("task")
    assert other.group("core") == {"hidden_size": 256, "attention_size": None}


def test_an_option_may_be_called_like_anything(tmp_path):
    config = parse(["--task.name", "priority_sort", "--task.items", "5", "--task.answers", "2"]).config
    assert config["task.items"] == 5
    (tmp_path / "saved.yaml").write_text(write(config.as_dict()))
    assert parse(["--config", str(tmp_path / "saved.yaml")]).config.flat() == config.flat()


def test_help_shows_the_options_of_the_task(capsys):
    assert main(["train", *TINY, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--task.objects" in text and "--training.stop_at" in text and "--env.id" not in text


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--task.name", "copi"], "unknown task 'copi': did you mean 'copy'?"),
        ([*TINY, "--task.object", "4"], "unknown option of task 'nth_farthest' 'object': did you mean 'objects'?"),
        ([*TINY, "--task.objects", "1"], "objects must be"),
        ([*TINY, "--training.optimizer", "sgd"], "unknown training.optimizer 'sgd': choose from adam, rmsprop"),
        (
            [*TINY, "--training.learning_rate", "fast"],
            "training.learning_rate must be a number of at least 0, or a sch",
        ),
        (
            [*TINY, "--env.id", "CartPole-v1"],
            "unknown option 'env.id': a training on a task has the groups task, ",
        ),
        (
            ["--task.objects", "4"],
            "unknown option 'task.objects': a training on environments has the groups env, ",
        ),
        (["--config", "pong/stm", "--task.name", "copy"], "is a config of environments: task.name needs a config of a"),
        ([*TINY, "--core.name", "ltsm"], "unknown core 'ltsm': did you mean 'lstm'?"),
        ([*TINY, "--core.hidden_size", "0"], "hidden_size must be an integer of at least 1, got 0"),
        ([*TINY, "--device", "mps"], "unknown device 'mps': choose auto, cpu, cuda or cuda:N"),
        (
            ["--task.name", "multi_query_associative_recall", "--core.name", "attentional_lstm"],
            "attentional_lstm reads its inputs before it answers, but this task goes on asking",
        ),
        (
            ["--task.name", "priority_sort", "--task.items", "10"],
            "answers must be an integer from 1 to 10 (items), got 16",
        ),
        pytest.param(
            ["--task.name", "minimum_spanning_tree", "--task.max_nodes", "30", "--task.max_edges", "200"],
            "hardly ever have a single optimum: choose a smaller max_edges",
            marks=pytest.mark.slow,
        ),
        (
            ["--task.name", "convex_hull", "--task.max_points", "51"],
            "max_points must be an integer from 5 to 50, got 51",
        ),
        ([*TINY, "--device", "gpu"], "unknown device 'gpu': choose auto, cpu, cuda or cuda:N"),
        ([*TINY, "--total_updates", "0"], "total_updates must be an integer of at least 1, got"),
    ],
)
def test_mistakes_are_answered_in_one_sentence_before_anything_is_made(flags, sentence, tmp_path, capfd):
    assert main(["train", *flags, "--run_dir", str(tmp_path / "run")]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.endswith(" ...")]
    assert sentence in lines[0] and len(lines) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--core.name", "gru"], "with core.name gru: that run has core.name lstm"),
        (["--task.objects", "4"], "with task.objects 4: that run has task.objects 3"),
        (["--seed", "4"], "(only total_updates, max_minutes, device, precision, threads, keep may change)"),
    ],
)
def test_resume_refuses_to_make_another_run_of_it(run, flags, sentence, capfd):
    assert main(["train", "--resume", str(run), *flags]) == 2
    assert sentence in capfd.readouterr().err


def test_resume_refuses_a_broken_checkpoint(copied, capfd):
    (copied / "model.pt").write_bytes(b"nothing")
    assert main(["train", "--resume", str(copied), "--total_updates", "30"]) == 2
    assert "holds no checkpoint to continue from" in capfd.readouterr().err
