"""Tuning: real studies of Optuna over trainings of a moment."""

import signal
import sys
import threading
import time

import optuna
import pytest
import ray
import yaml

from relmem.cli import main
from relmem.cli.options import parse
from relmem.experiment.agent import ALGORITHMS
from relmem.experiment.run import Run
from relmem.experiment.search_space import Choices, Numbers, read_space, require_space, shipped_space
from relmem.experiment.tune import open_study

TUNE = ["tune", "cartpole/masked_lstm", "--total_timesteps", "400", "--env.n_envs", "2", "--core.hidden_size", "4",
        "--eval.episodes", "1", "--algo.n_steps", "32", "--algo.n_epochs", "1", "--out", "tuned"]  # fmt: skip
SPACE = "algo.learning_rate: {low: 1e-4, high: 1e-2, log: true}\nalgo.gamma: {choices: [0.9, 0.99]}\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def trials(folder):
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'tuned' / 'study.db'}").trials


@pytest.mark.parametrize(
    "config", ["pong/stm", "pong/lstm_a3c", "tasks/parity_stm", "pong/rmc", "cartpole/masked_lstm"]
)
def test_the_shipped_spaces_hold_options_that_there_are(config):
    _, values, *_ = parse(["--config", config])
    kind = "supervised" if config.startswith("tasks") else values["algo.name"]
    space = shipped_space(kind, values["core.name"])
    require_space(space, values.options)
    assert any(isinstance(of_option, Numbers) for of_option in space.values())
    assert any(name.startswith("core.") for name in space)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_there_is_a_space_for_every_algorithm(algorithm):
    _, values, *_ = parse(["--config", "cartpole/masked_lstm", "--algo.name", algorithm])
    require_space(shipped_space(algorithm, "lstm"), values.options)


def test_values_are_drawn_as_one_would_type_them(here):
    trial = optuna.trial.FixedTrial({"rate": 0.00123456, "steps": 3, "arch": "[64, 64]", "none": "null"})
    assert Numbers(1e-4, 1e-2, log=True).draw(trial, "rate") == "0.001235"
    assert Numbers(1, 8).draw(trial, "steps") == "3"
    assert Choices(([64], [64, 64])).draw(trial, "arch") == "[64, 64]"
    assert Choices((None, 4)).draw(trial, "none") == "null"
    assert read_space(here / "space.yaml") == {
        "algo.learning_rate": Numbers(1e-4, 1e-2, True), "algo.gamma": Choices((0.9, 0.99)),
    }  # fmt: skip


@pytest.mark.slow
def test_a_study_goes_on_until_it_has_so_many_trials_and_leaves_a_config(here, capsys):
    tune = [*TUNE, "--space", "space.yaml"]
    assert main([*tune, "--trials", "1"]) == 0
    assert main([*tune, "--trials", "2"]) == 0
    said = capsys.readouterr().out
    assert "1 of 2 trials are over" in said and "Train with it: relmem train --config tuned/best.yaml" in said
    found = trials(here)
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 2
    assert all(len(trial.intermediate_values) >= 5 for trial in found)  # by which it may be pruned
    best = max(found, key=lambda trial: trial.value)
    config = yaml.safe_load((here / "tuned" / "best.yaml").read_text())
    assert config["algo"]["learning_rate"] == pytest.approx(best.params["algo.learning_rate"], rel=1e-3)
    assert config["core"] == {"name": "lstm", "hidden_size": 4} | config["core"]
    assert parse(["--config", "tuned/best.yaml"]).config.as_dict() == config
    assert main([*tune, "--trials", "2"]) == 0 and "Trial" not in capsys.readouterr().out.partition("Best")[0]
    assert main([*tune, "--trials", "3", "--algo.gae_lambda", "0.8"]) == 2
    assert "the study in 'tuned' is of other options" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_is_not_worth_its_time_ends_at_an_evaluation(here):
    asked = parse([*("--config" if word == "tune" else word for word in TUNE[:-2]), "--eval.every", "100"])
    job, scores = asked.job(asked.config), {}
    run = Run(job, [], here / "run", None, None)

    def evaluated(step, score):
        scores[step] = score
        if step >= 200:
            run.stop.ask()

    job.evaluated = evaluated
    assert run.execute() == 0 and job.outcome() is None and job.done < 400
    assert len(scores) == 2 and (here / "run" / "model.zip").exists()


@pytest.mark.slow
def test_a_trial_that_is_broken_off_goes_on_in_its_folder(here, capsys):
    tune = [*TUNE, "--space", "space.yaml", "--trials", "1", "--total_timesteps"]
    del tune[2:4]
    file = here / "tuned" / "trial_0000" / "episodes.csv"

    def stop(command):
        while not (file.exists() and file.with_name("command.txt").read_text().count("relmem") == command):
            time.sleep(0.05)
        time.sleep(0.2)
        signal.raise_signal(signal.SIGINT)

    for command in (1, 2):
        threading.Thread(target=stop, args=(command,), daemon=True).start()
        assert main([*tune, "10_000_000"]) == 128 + signal.SIGINT
        *broken, waiting = trials(here)
        assert [trial.state.name for trial in broken] == ["FAIL"] * command and waiting.state.name == "WAITING"
        assert waiting.params == broken[0].params
    assert {path.name for path in (here / "tuned").iterdir()} == {"study.db", "trial_0000"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "relmem tune: the following arguments are required: --trials"),
        (["--trials", "0"], "relmem tune: argument --trials: invalid"),
        (["--trials", "1", "--out", "space.yaml/study"], "cannot write to folder 'space.yaml/study'"),
        (["--trials", "1", "--core.hidden_size", "1", "2"], "--core.hidden_size takes one value"),
        (["--trials", "1", "--space", "none.yaml"], "cannot read search space none.yaml"),
        (["--trials", "1", "--space", "list.yaml"], "search space list.yaml must be a mapping"),
        (["--trials", "1", "--space", "text.yaml"], "text.yaml: algo.gamma needs a range such as"),
        (["--trials", "1", "--space", "other.yaml"], "unknown option in the search space 'algo.gama': did you mean"),
        (["--trials", "1", "--space", "large.yaml"], "algo.gamma must be a number from 0 to 1, got 2"),
        (
            ["--trials", "1", "--space", "space.yaml", "--algo.gamma", "1", "--algo.learning_rate", "1"],
            "nothing is left",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_written(words, sentence, here, capsys):
    (here / "list.yaml").write_text("[1]")
    (here / "text.yaml").write_text("algo.gamma: {low: 0.9}")
    (here / "other.yaml").write_text("algo.gama: {choices: [1]}")
    (here / "large.yaml").write_text("algo.gamma: {low: 0.9, high: 2}")
    before = sorted(here.rglob("*"))
    assert main(["tune", "cartpole/masked_lstm", *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"relmem: {sentence}")
    assert sorted(here.rglob("*")) == before


def test_each_of_several_processes_has_all_options_and_a_trial_of_its_own(here, monkeypatch):
    helpers = []
    monkeypatch.setattr("relmem.cli.tune.launcher", lambda *_: lambda each, _: helpers.extend(each) or 130)
    assert main([*TUNE, "--space", "space.yaml", "--trials", "3", "--processes", "8"]) == 130
    assert len(helpers) == 3 and len({helper.options for helper in helpers}) == 1
    assert {"--core.hidden_size", "--space", "--trials"} <= set(helpers[0].arguments())
    assert "--processes" not in helpers[0].arguments()


def test_a_study_lies_in_any_folder_and_a_damaged_one_is_refused(here, capsys):
    for name in ("ü %20", "what?#"):
        open_study(here / name, "study", False, [], 0)
        assert [path.name for path in (here / name).iterdir()] == ["study.db"]
    (here / "tuned").mkdir()
    (here / "tuned" / "study.db").write_text("no database " * 100)
    assert main([*TUNE, "--trials", "1"]) == 2
    assert "cannot open the study 'tuned/study.db': " in capsys.readouterr().err


def test_without_optuna_the_extra_is_named(here, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "relmem.experiment.tune", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "cartpole/masked_lstm", "--trials", "1"]) == 2
    assert "needs the extra [tune]: pip install 'relmem[tune]'" in capsys.readouterr().err
    assert not (here / "runs").exists()


@pytest.mark.slow
def test_a_study_runs_on_a_ray_cluster(here, capsys):
    try:
        assert main([*TUNE, "--space", "space.yaml", "--trials", "1", "--launcher", "ray"]) == 0
    finally:
        ray.shutdown()
    assert [trial.state.name for trial in trials(here)] == ["COMPLETE"] and (here / "tuned" / "best.yaml").exists()
    assert "Trial 0" in (here / "tuned" / "process_0.log").read_text()
    assert "Best of 1 trials" in capsys.readouterr().out
