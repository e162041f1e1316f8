"""Runs beside each other: ``plot`` and ``sweep``."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from rliable import metrics

from relmem.cli import main
from relmem.cli.sweep import training
from relmem.experiment.compare import compare, find_runs, interquartile_means, middle_half, normalised, read_run
from relmem.experiment.folder import is_over

CONFIG = {
    "total_timesteps": 1000,
    "seed": 0,
    "env": {"id": "CartPole-v1", "n_envs": 2},
    "core": {"name": "lstm", "hidden_size": 8},
    "algo": {"name": "ppo", "learning_rate": 1e-3},
}
PNG = b"\x89PNG"


def make_run(folder, level=10.0, episodes=200, seconds=True, **changes):
    """The folder of an agent whose returns are all of one level."""
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIG.items()}
    for key, value in changes.items():
        group, _, name = key.rpartition("__")
        (config.setdefault(group, {}) if group else config)[name] = value
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [f"{10 * (i + 1)},{level},10" + f",{i + 1}" * seconds for i in range(episodes)]
    (folder / "episodes.csv").write_text("\n".join(["step,return,length,seconds", *rows, ""]))
    return folder


def make_model(folder, score, core="lstm", seed=0):
    """The folder of a model on a task whose metric is to be low."""
    folder.mkdir(parents=True)
    config = {"seed": seed, "task": {"name": "copy"}, "core": {"name": core}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    history = [{"update": u, "seconds": 60.0 * u, "valid_bit_errors": score + 2 - u} for u in (1, 2)]
    results = {"metric": "bit_errors", "higher_is_better": False, "history": history}
    (folder / "results.json").write_text(json.dumps(results | {"test": {"test": {"bit_errors": score + 0.5}}}))
    return folder


@pytest.fixture
def cores(tmp_path):
    for core, level in (("lstm", 10.0), ("gru", 30.0)):
        for seed in (1, 2):
            make_run(tmp_path / "runs" / f"{core}_{seed}", level + seed, seed=seed, core__name=core)
    return tmp_path / "runs"


def rows_of(folder, *by):
    tables = compare(find_runs([folder])[0], by).tables
    return {task: {row: len(runs) for row, runs in rows.items()} for task, rows in tables.items()}


def test_rows_are_what_differs_but_for_seeds(cores, tmp_path):
    assert rows_of(cores) == {"CartPole-v1": {"gru": 2, "lstm": 2}}
    make_run(cores / "large", seed=1, core__hidden_size=16, device="cpu", total_timesteps=5)
    table = {"gru, hidden_size 8": 2, "lstm, hidden_size 16": 1, "lstm, hidden_size 8": 2}
    assert rows_of(cores) == {"CartPole-v1": table}
    assert rows_of(cores, "core") == {"CartPole-v1": {"gru": 2, "lstm": 3}}
    assert rows_of(cores, "core.hidden_size") == {"CartPole-v1": {"hidden_size 8": 4, "hidden_size 16": 1}}


def test_whatever_lies_beside_runs_is_left_out_and_no_run_counts_twice(cores, monkeypatch):
    (cores / "plot.png").touch()
    (cores / "none").mkdir()
    monkeypatch.chdir(cores)
    runs, left_out = find_runs([*cores.iterdir(), cores, Path("lstm_1")])
    assert len(runs) == 4 and {path.name for path in left_out} == {"plot.png", "none"}


def test_how_a_run_was_kept_and_where_it_was_trained_makes_no_row(cores):
    make_run(cores / "ray", seed=3, launcher="ray", track=True, keep=9, ray__workers=4)
    assert rows_of(cores) == {"CartPole-v1": {"gru": 2, "lstm": 3}}


def test_environments_and_their_arguments_are_tasks_of_their_own(tmp_path):
    make_run(tmp_path / "a", env__id="relmem/TMaze-v0", env__kwargs={"length": 20})
    make_run(tmp_path / "b", env__id="relmem/TMaze-v0", env__kwargs={"length": 50}, algo__learning_rate=3e-3)
    make_run(tmp_path / "c", core__name="gru")
    assert rows_of(tmp_path) == {
        "relmem/TMaze-v0, length 20": {"lstm": 1},
        "relmem/TMaze-v0, length 50": {"lstm": 1},
        "CartPole-v1": {"gru": 1},
    }


def test_a_picture_a_table_and_what_is_left_out(cores, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    make_run(cores / "new", episodes=0)
    make_run(cores / "old", seconds=False)
    assert main(["plot", "runs", "--x", "minutes", "--by", "core"]) == 0
    said = capsys.readouterr()
    assert "runs/new is left out: no episode has ended yet" in said.err and "runs/old is left out" in said.err
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)
    line = "| gru | 2 | 31.5 (31.0 to 32.0) |  | 2,000 | 3.3 |"
    assert line in (tmp_path / "plot.md").read_text() and "31.5 (31.0 to 32.0)" in said.out
    assert main(["plot", "runs", "--out", "again.svg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(run["run"], run["final"]) for run in found["runs"]} >= {("runs/gru_2", 32.0), ("runs/old", 10.0)}
    assert list(found["left_out"]) == ["runs/new"] and found["picture"] == "again.svg"


@pytest.mark.parametrize(
    ("id", "skip", "frames"),
    [("CartPole-v1", None, 1), ("CartPole-v1", 3, 3), ("ALE/Pong-v5", None, 4), ("relmem/PongSkip16-v0", None, 16)],
)
def test_frames_are_known_before_a_run_is_over(tmp_path, id, skip, frames):
    make_run(tmp_path / "run", env__id=id, env__frame_skip=skip)
    assert read_run(tmp_path / "run").curve.frames_per_step == frames


def test_models_of_tasks_are_compared_too(tmp_path, capsys):
    for core, score in (("lstm", 4.0), ("gru", 2.0)):
        make_model(tmp_path / core, score, core)
    run = read_run(tmp_path / "gru")
    assert (run.final, run.tested, run.higher_is_better) == (2.0, 2.5, False)
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "tasks.png")]) == 0
    assert "| gru | 1 | 2 | 2.5 | 2 | 2.0 |" in (tmp_path / "tasks.md").read_text()
    scores = normalised(compare(find_runs([tmp_path])[0]))
    assert scores["gru"].item() == 1.0 and scores["lstm"].item() == 0.0  # few errors are good


def test_means_over_tasks_need_a_run_on_each(tmp_path, capsys):
    for env in ("CartPole-v1", "Acrobot-v1"):
        for core, level in (("lstm", 1.0), ("gru", 3.0)):
            for seed in (1, 2, 3):
                make_run(tmp_path / f"{env}_{core}_{seed}", level + seed / 4, env__id=env, core__name=core, seed=seed)
    make_run(tmp_path / "rmc", core__name="rmc", level=2.0)
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "both.png")]) == 0
    assert "'rmc' has no run on some tasks" in capsys.readouterr().err
    text = (tmp_path / "both.md").read_text()
    assert "| gru | 0.90 (" in text and "| lstm | 0.10 (" in text and "| rmc | 0." not in text
    assert text.index("## Acrobot-v1") < text.index("## All 2 tasks")


def test_interquartile_means_are_those_of_rliable_and_leave_out_the_extremes():
    scores = np.array([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5], [9.0, -9.0]])
    found = interquartile_means({"row": scores, "same": np.full((3, 2), 0.25)})
    assert found["row"].estimate == 0.5 and found["row"].low < 0.5 < found["row"].high
    assert found["same"] == (0.25, 0.25, 0.25)
    assert found == interquartile_means({"row": scores, "same": np.full((3, 2), 0.25)})
    for shape in ((1, 2), (3, 3), (5, 7)):
        scores = np.random.default_rng(0).normal(size=shape)
        assert middle_half(scores) == pytest.approx(metrics.aggregate_iqm(scores))


def test_intervals_hold_the_true_mean_about_as_often_as_they_say():
    generator = np.random.default_rng(1)
    samples = {str(i): generator.normal([0.0, 1.0], size=(20, 2)) for i in range(60)}
    held = [interval.low <= 0.5 <= interval.high for interval in interquartile_means(samples).values()]
    assert 0.85 <= np.mean(held) <= 1.0


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["plot", "nowhere"], "there is no folder 'nowhere'"),
        (
            ["plot", "empty", "taken.png"],
            "there is nothing to draw yet (empty: there is no config.yaml in it or below; taken",
        ),
        (["plot", "new"], "there is nothing to draw yet (new: no episode has ended yet)"),
        (["plot", "run", "--out", "taken.png"], "'taken.png' exists already: choose another name, or remove it"),
        (["plot", "run", "--out", "table.png"], "'table.md' exists"),
        (["plot", "run", "--out", "plot.gif"], "--out must end in .png, .svg, .pdf, got 'plot.gif'"),
        (["plot", "run", "--by", "core.hiden_size"], "unknown option to compare by 'core.hiden_size': did you mean"),
        (["plot", "run", "--out", "run/config.yaml/plot.png"], "there is no folder"),
        (["plot", "run" * 100], "[Errno 36] File name too long"),
        (["sweep", "cartpole/masked_lstm", "--out", "taken.png/runs"], "cannot write to folder 'taken.png/runs'"),
        (["sweep", "cartpole/masked_lstn"], "unknown config 'cartpole/masked_lstn': did you mean"),
        (["sweep", "cartpole/masked_lstm", "--seeds", "1", "1"], "the sweep has a training twice"),
        (
            ["sweep", "cartpole/masked_lstm", "--core.hidden_siz", "1", "2"],
            "unknown option of core 'lstm'",
        ),
        (["sweep", "cartpole/masked_lstm", "--core.hidden_size", "1", "x"], "core.hidden_size must be an integer"),
        (["sweep", "cartpole/masked_lstm", "--out", "."], "'s0' exists and is no folder of a run"),
        (["sweep", "cartpole/masked_lstm", "--processes", "0"], "relmem sweep: argument --processes"),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_written(argv, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    make_run(tmp_path / "new", episodes=0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "s0").mkdir()
    for name in ("taken.png", "table.md", "s0/mine"):
        (tmp_path / name).touch()
    before = sorted(tmp_path.rglob("*"))
    assert main(argv) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"relmem: {sentence}")
    assert sorted(tmp_path.rglob("*")) == before


def test_runs_of_a_sweep_are_named_after_what_differs(tmp_path):
    lists = {
        "core.name": ["gru", "my:own"],
        "algo.gamma": ["0.9"],
        "policy.net_arch": ["[]", "[64, 64]"],
        "seed": ["7"],
    }
    made = training(tmp_path, ["--config", "own.yaml"], lists, ["my:own", "0.9", "[64, 64]", "7"])
    assert made.folder == tmp_path / "my-own_net_arch_64-64_s7"
    assert made.options == (
        *("--config", "own.yaml", "--core.name", "my:own", "--algo.gamma", "0.9"),
        *("--policy.net_arch", "[64, 64]", "--seed", "7"),
    )


SWEEP = ["sweep", "cartpole/masked_lstm", "--seeds", "1", "--core.hidden_size", "4", "--algo.gamma", "0.9", "0.98",
         "--env.n_envs", "2", "--total_timesteps", "300", "--algo.n_steps", "32", "--eval.episodes", "1",
         "--processes", "1", "--out", "sweep"]  # fmt: skip


def test_a_sweep_over_tasks_is_a_product_and_compared_over_them(tmp_path, monkeypatch):
    monkeypatch.setattr("relmem.cli.sweep.run", lambda out, trainings, todo, launch, by: len(todo) * 100 + len(by))
    lists = ["--env.id", "CartPole-v1", "Acrobot-v1", "--core.name", "lstm", "gru", "--track", "false"]
    sweep = ["sweep", "--seeds", "1", "2", "--processes", "1", "cartpole/masked_lstm", *lists]
    assert main([*sweep, "--out", str(tmp_path / "out")]) == 801


@pytest.mark.slow
def test_a_sweep_trains_each_once_and_draws_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(SWEEP) == 0
    said = capsys.readouterr().out
    names = {"gamma_0.9_s1", "gamma_0.98_s1"}
    assert {path.parent.name for path in tmp_path.rglob("config.yaml")} == names
    assert all(is_over(tmp_path / "sweep" / name) for name in names)
    assert "2 trainings in sweep: 0 are over, 2 to go" in said
    assert "| gamma 0.98 | 1 | " in (tmp_path / "sweep" / "plot.md").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.zip")}
    assert main(SWEEP) == 0 and "2 are over, 0 to go" in capsys.readouterr().out
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.zip")}
    assert main([*SWEEP, "--algo.ent_coef", "0.5"]) == 2
    assert "with algo.ent_coef 0.5: that run has algo.ent_coef 0.0" in capsys.readouterr().err
