"""The tables of results: every row can be trained, and what was trained is drawn as it came out."""

import json

import pytest

from benchmarks import results, task_tables, tasks
from relmem.cli import main
from relmem.cli.options import parse

TABLES = task_tables.read_tables()
ROWS = {f"{table.name}/{run.name}": run for table in TABLES.values() for run in table.runs}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_config_and_a_limit(row):
    config = parse(list(ROWS[row].options)).config
    assert config.max_minutes is not None
    table = row.split("/")[0]
    assert table.startswith(config.task["name"])


def test_the_models_of_a_table_differ_in_nothing_but_the_core():
    for table in TABLES.values():
        configs = [parse(list(run.options)).config.as_dict() for run in table.runs]
        tasks_ = [{key: c[key] for key in ("task", "head", "training", "seed")} for c in configs]
        assert all(one == tasks_[0] for one in tasks_)


def test_runs_are_chosen_by_table_or_alone():
    assert [run.name for _, run in tasks.choose(["copy", "priority_sort/lstm"])] == ["stm", "rmc", "lstm", "lstm"]
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


def test_results_are_drawn_as_they_came_out(trained, tmp_path, monkeypatch):
    table, runs = trained
    monkeypatch.setattr(task_tables, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "PONG", tmp_path / "copy")
    for run in table.runs:
        if (runs / run.name).exists():
            tasks.record(runs / run.name, table.result(run))
    text = (tmp_path / "README.md").read_text()
    found = json.loads(table.result(table.runs[0]).read_text())
    row = next(line for line in text.splitlines() if line.startswith("| [STM"))
    assert f"{found['test']['test']['bit_errors']:.2f}" in row and "almost 0" in row and "2 updates" in row
    assert f"{found['parameters']:,}" in row
    assert "| *guessing* | 80.00 |" in text and "RMC" not in text
    assert (tmp_path / "copy" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_is_not_over_is_not_recorded(trained, tmp_path):
    _, runs = trained
    unfinished = json.loads((runs / "stm" / "results.json").read_text()) | {"test": None}
    (tmp_path / "results.json").write_text(json.dumps(unfinished))
    with pytest.raises(ValueError, match="is not over"):
        tasks.record(tmp_path, tmp_path / "result" / "results.json")


def test_the_committed_tables_are_those_of_the_committed_figures():
    assert (results.FOLDER / "README.md").read_text() == results.tasks_readme()
    assert (results.PONG / "README.md").read_text() == results.pong_readme()


def test_committed_results_are_what_the_tables_say():
    for table in TABLES.values():
        for run in table.runs:
            if table.result(run).exists():
                found = json.loads(table.result(run).read_text())
                asked = parse([*run.options, "--seed", str(found["seed"])]).config.as_dict()
                assert found["config"] == asked, f"{table.name}/{run.name} was trained with other options"
