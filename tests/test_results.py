"""The tables of results: every row can be trained, and what was trained is drawn as it came out."""

import json
import math

import pytest
import torch
from filelock import FileLock

from benchmarks import record_run, results, task_tables, tasks
from relmem.cli import main
from relmem.cli.options import parse
from relmem.experiment.episodes import read_episodes

TABLES = task_tables.read_tables()
ROWS = {f"{table.name}/{run.name}": run for table in TABLES.values() for run in table.runs}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_config_and_a_limit(row):
    config = parse(list(ROWS[row].options)).config
    assert config["max_minutes"] is not None
    table = row.split("/")[0]
    assert table.startswith(config["task.name"])
    assert config["core.name"] in results.COLOURS


def test_the_models_of_a_table_differ_in_nothing_but_core_minutes_and_a_rate_that_the_title_tells():
    for table in TABLES.values():
        kept, rates = [], []
        for run in table.runs:
            config = parse(list(run.options)).config.as_dict()
            rates.append(config["training"].pop("learning_rate"))
            kept.append(config | {"core": None, "max_minutes": None})
        assert all(config == kept[0] for config in kept)
        assert all(rate == rates[0] or "rate 3e-4" in run.title for rate, run in zip(rates, table.runs, strict=True))


def test_runs_are_chosen_by_table_or_alone():
    assert [run.name for _, run in tasks.choose(["convex_hull", "copy/lstm"])] == [
        "lstm",
        "stm",
        "rmc",
        "lstm",
        "alstm",
    ]
    assert len(tasks.choose([])) == len(ROWS)
    with pytest.raises(ValueError, match="did you mean 'copy'"):
        tasks.choose(["copi"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two models of one table, trained for a moment."""
    folder = tmp_path_factory.mktemp("trained")
    table = TABLES["copy"]
    for name in ("stm", "lstm"):
        run = next(run for run in table.runs if run.name == name)
        assert main(["train", *run.options, "--smoke", "--run_dir", str(folder / name)]) == 0
    return table, folder


def without_nulls(config):
    """Committed results name options that were left open, as null."""
    kept = {key: without_nulls(value) if isinstance(value, dict) else value for key, value in config.items()}
    return {key: value for key, value in kept.items() if value not in (None, {})}


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder for results that are not ours."""
    monkeypatch.setattr(task_tables, "FOLDER", tmp_path / "tasks")
    monkeypatch.setattr(results, "PONG", tmp_path / "pong")
    monkeypatch.setattr(tasks, "RUNS", tmp_path / "runs")
    for name in ("tasks", "pong"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_results_are_drawn_as_they_came_out(trained, kept):
    table, runs = trained
    for run in table.runs:
        if (runs / run.name).exists():
            tasks.record(runs / run.name, table.result(run))
    text = (kept / "tasks" / "README.md").read_text()
    found = json.loads(table.result(table.runs[0]).read_text())
    row = next(line for line in text.splitlines() if line.startswith("| [STM"))
    assert f"{found['test']['test']['bit_errors']:.2f}" in row and "almost 0" in row
    assert "finished after 2 updates" in row and f"{found['parameters']:,}" in row
    assert f"| *guessing* | {found['trivial']['test']['guessing']:.2f} |" in text
    assert "| [RMC" not in text and f"* {table.title}: RMC, 4 slots of 64; " in text
    assert (kept / "tasks" / "copy" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_models_are_compared_where_all_were_evaluated():
    ended_early, other = ([{"update": u} for u in updates] for updates in ((5, 10, 13), (5, 10, 15, 20)))
    assert results.shared_updates([{"history": ended_early}, {"history": other}]) == 10
    assert results.shared_updates([{"history": ended_early}, {"history": []}]) == 0


@pytest.mark.parametrize(("higher", "best"), [(True, 0.4), (False, 0.3)])
def test_models_are_compared_within_equal_updates(higher, best):
    history = [{"update": u, "valid_score": s} for u, s in ((5, 0.4), (10, 0.3), (15, 0.9), (20, 0.1))]
    result = {"metric": "score", "higher_is_better": higher, "history": history}
    assert results.best_within(14, result) == best
    assert math.isnan(results.best_within(4, result))


def test_a_row_is_trained_once_and_goes_on_where_it_was_ended(kept, monkeypatch):
    commands = []
    monkeypatch.setattr(tasks, "relmem", lambda argv: commands.append(argv) or 130)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # which would hold for all tests that follow
    monkeypatch.setattr("sys.argv", ["tasks", "copy/lstm"])
    table, run = tasks.choose(["copy/lstm"])[0]
    folder = kept / "runs" / "copy" / "lstm"
    (folder / "checkpoints").mkdir(parents=True)
    assert tasks.main() == 130
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "step_1.pt").touch()
    assert tasks.main() == 130
    with FileLock(kept / "runs" / "copy-lstm.lock"):
        assert tasks.main() == 0  # another process is at it
    table.result(run).parent.mkdir(parents=True)
    table.result(run).touch()
    assert tasks.main() == 0
    begun, resumed = commands
    assert begun == ["train", *run.options, "--seed", "1", "--run_dir", str(tasks.RUNS / "copy" / "lstm")]
    assert resumed == ["train", "--resume", str(tasks.RUNS / "copy" / "lstm"), *run.options, "--seed", "1"]


def test_a_run_on_environments_is_recorded_with_its_curve(kept, monkeypatch):
    run = kept / "run"
    flags = ["--core.hidden_size", "8", "--total_timesteps", "256", "--env.n_envs", "2", "--algo.n_steps", "32"]
    assert main(["train", "--config", "cartpole/masked_lstm", *flags, "--run_dir", str(run)]) == 0
    monkeypatch.setattr(record_run, "CURVE_STEPS", 100)
    (run / "versions.txt").write_text("# relmem at commit abc1234+\n# relmem at commit def5678 (resumed)\n")
    record_run.main([str(run), "lstm_s0", "--conditions", "None."])
    figures = json.loads((kept / "pong" / "lstm_s0" / "figures.json").read_text())
    episodes = read_episodes(run / "episodes.csv")
    assert figures["commit"] == "abc1234+" and figures["episodes"] == len(episodes)
    assert figures["mean_return_last_100"] == pytest.approx(episodes[-100:, 1].mean(), abs=0.01)
    assert [point[0] for point in figures["curve"]] == [100, 200, episodes[-1, 0]]
    assert figures["evaluation"] > 0 and figures["evaluation_games"] == 8
    assert figures["first_reached"]["18"] is None or figures["best_mean_return_100"] > 18
    text = (kept / "pong" / "README.md").read_text()
    assert "| [lstm_s0](lstm_s0/figures.json) |" in text and " (8 of 8) |" in text
    assert (kept / "pong" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_core_without_a_colour_is_drawn_too(tmp_path):
    results.draw_pong([{"core": "my_module:own", "curve": [(10, 0.1, -21.0), (20, 0.2, -20.0)]}], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_is_not_over_is_not_recorded(trained, tmp_path):
    _, runs = trained
    unfinished = json.loads((runs / "stm" / "results.json").read_text()) | {"test": None}
    (tmp_path / "results.json").write_text(json.dumps(unfinished))
    with pytest.raises(ValueError, match="is not over"):
        tasks.record(tmp_path, tmp_path / "result" / "results.json")


def test_the_committed_tables_are_those_of_the_committed_figures():
    assert (task_tables.FOLDER / "README.md").read_text() == results.tasks_readme()
    assert (results.PONG / "README.md").read_text() == results.pong_readme()


def test_every_committed_result_is_a_row():
    rows = {table.result(run) for table in TABLES.values() for run in table.runs}
    assert rows.issuperset(task_tables.FOLDER.glob("*/*/results.json"))


def test_committed_results_are_what_the_tables_say():
    for table in TABLES.values():
        for run in table.runs:
            if table.result(run).exists():
                found = json.loads(table.result(run).read_text())
                asked = parse([*run.options, "--seed", str(found["seed"])]).config.as_dict()
                assert without_nulls(found["config"]) == without_nulls(asked), (
                    f"{table.name}/{run.name} was trained with other options"
                )
