"""The list of runs and the tables: every run can be trained, and what it showed is drawn as it came out."""

import json

import numpy as np
import pytest
import torch
from filelock import FileLock

from relmem.agents import load
from relmem.agents.evaluate import evaluate
from relmem.cli import launch, main, queue
from relmem.cli.options import parse
from relmem.envs import make_vec_env
from relmem.experiment import pictures, run_list, tables

TABLES = run_list.read_tables()
RUNS = {f"{run.table}/{run.name}": run for table in TABLES.values() for run in table.runs}
TASK_TABLES = [table for table in TABLES.values() if table.name.startswith("tasks/")]
KINDS = {name.partition("/")[0] for name in TABLES}
PNG = b"\x89PNG"


def config_of(run):
    return parse(list(run.options)).config.as_dict()


ROWS = {(run.table, run.row): name for name, run in RUNS.items()}.values()  # a run of each


@pytest.mark.parametrize("name", ROWS)
def test_every_run_has_a_config_a_seed_and_an_end(name):
    run = RUNS[name]
    config = config_of(run)
    assert config["seed"] == (int(name.rpartition("_s")[2]) if ", seed " in run.title else 1)
    assert config["core"]["name"] in pictures.COLOURS
    if name.startswith("tasks/"):
        assert config["max_minutes"] is not None and run.table.startswith(f"tasks/{config['task']['name']}")
    else:
        assert config["total_timesteps"] > 0 and config["eval"]["episodes"] >= 8
        assert not name.startswith("pong/") or "Pong" in config["env"]["id"]


STUDY = [table for table in TABLES.values() if table.name.startswith("pong/")]


@pytest.mark.parametrize("table", STUDY, ids=[table.name for table in STUDY])
def test_the_study_of_pong_compares_cores_and_nothing_else(table):
    kept, gammas, lengths = [], [], []
    runs = [run for run in table.runs if "A3C" not in run.title and "earlier recipe" not in run.title]
    assert runs[0].row == "no memory" and {run.name.rpartition("_s")[2] for run in runs} <= {
        str(101 + i) for i in range(5)
    }
    for run in runs:
        config = config_of(run)
        gammas.append(config["algo"].pop("gamma"))
        lengths.append(config["algo"].pop("bptt_length"))
        kept.append(config | {"core": None, "seed": None})
    assert all(config == kept[0] for config in kept) and kept[0]["eval"]["episodes"] == 20
    assert all(gamma == gammas[0] or "discount 0.99" in run.title for gamma, run in zip(gammas, runs, strict=True))
    for length, run in zip(lengths, runs, strict=True):  # what a row of another length says of itself
        assert (length == lengths[0]) != run.title.partition(", seed")[0].endswith(f"sequences of {length}")
    frames = kept[0]["env"]["frame_skip"] or 1
    assert gammas[0] == pytest.approx(0.99 ** (frames / 4), abs=1e-3)


def test_tests_of_memory_have_one_recipe_and_one_other_rate_for_all_cores():
    for table in (table for table in TABLES.values() if table.name.startswith("memory/")):
        configs = [config_of(RUNS[name]) for name in ROWS if RUNS[name].table == table.name]
        rates = {config["algo"].pop("learning_rate") for config in configs}
        assert len(rates) <= 2 and table.runs[0].model == ("no memory" if table.range else "LSTM, 64 cells")
        assert all(config | {"core": 0, "seed": 0} == configs[0] | {"core": 0, "seed": 0} for config in configs)


def test_what_scripts_reach_is_the_mean_of_their_games():
    found = json.loads((run_list.RESULTS / "pong" / "reference.json").read_text())
    assert {f"pong/{name}" for name in found["lines"]} <= set(TABLES)
    for name, lines in found["lines"].items():
        for script, level in lines.items():
            games = found["games"][name][script.removeprefix("script that ")]
            assert level == pytest.approx(np.mean([game["won"] - game["lost"] for game in games]), abs=0.01)


def test_the_control_has_the_recipe_of_the_lstm():
    configs = [parse(["--config", f"pong/{core}"]).config.as_dict() for core in ("identity", "lstm")]
    assert [config.pop("core")["name"] for config in configs] == ["identity", "lstm"]
    assert configs[0] == configs[1]


def test_the_models_of_a_task_differ_in_nothing_but_core_minutes_and_a_rate_that_the_title_tells():
    for table in TASK_TABLES:
        kept, rates = [], []
        for run in table.runs:
            config = config_of(run)
            rates.append(config["training"].pop("learning_rate"))
            kept.append(config | {"core": None, "max_minutes": None})
        assert all(config == kept[0] for config in kept)
        assert all(rate == rates[0] or "rate 3e-4" in run.title for rate, run in zip(rates, table.runs, strict=True))


def test_a_row_with_seeds_is_a_run_for_each():
    rows = {
        "plain": {"title": "Plain"},
        "lstm": {"options": "--core.hidden_size 8", "seeds": [4, 3], "paper": "9 %"},
    }
    models = {"lstm": {"title": "LSTM", "options": "--core.name lstm"}}
    table = run_list._table("tasks/own", {"title": "Own", "options": "--config own", "runs": rows}, models)
    plain, *seeds = table.runs
    assert (plain.name, plain.title, plain.paper) == ("plain", "Plain", "")
    assert plain.options == ("--config", "own", "--seed", "1")
    assert [(run.name, run.title) for run in seeds] == [("lstm_s4", "LSTM, seed 4"), ("lstm_s3", "LSTM, seed 3")]
    assert seeds[0].options == tuple(
        ["--config", "own", "--core.name", "lstm", "--core.hidden_size", "8", "--seed", "4"]
    )


def test_runs_are_chosen_by_table_or_alone_in_the_order_of_the_list():
    chosen = queue.choose(["tasks/convex_hull", "tasks/copy/lstm"])
    assert [run.name for run in chosen] == ["lstm", "stm", "rmc", "lstm", "alstm"]
    assert queue.choose([]) == list(RUNS.values())
    with pytest.raises(ValueError, match=r"tasks/copi.*tasks/copy"):
        queue.choose(["tasks/copi"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two models of one table, trained for a moment."""
    folder = tmp_path_factory.mktemp("trained")
    runs = [run for run in TABLES["tasks/copy"].runs if run.name in ("stm", "lstm")]
    for run in runs:
        assert main(["train", *run.options, "--smoke", "--run_dir", str(folder / run.name)]) == 0
    return runs, folder


def without_nulls(config):
    """Committed results name options that were left open, as null."""
    kept = {key: without_nulls(value) if isinstance(value, dict) else value for key, value in config.items()}
    return {key: value for key, value in kept.items() if value not in (None, {})}


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder for results that are not ours, without texts."""
    monkeypatch.setattr(run_list, "RESULTS", tmp_path)
    monkeypatch.setattr(queue, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # which would hold for all tests that follow
    for kind in KINDS:
        (tmp_path / kind).mkdir()
    (tmp_path / "runs").mkdir()
    return tmp_path


def test_results_are_drawn_as_they_came_out(trained, kept):
    runs, folder = trained
    (kept / "tasks" / "intro.md").write_text("# Of tasks\n")
    (kept / "tasks" / "copy").mkdir()
    (kept / "tasks" / "copy" / "note.md").write_text("A surprise.\n")
    for run in runs:
        queue.record(folder / run.name, run.result)
    text = (kept / "tasks" / "README.md").read_text()
    found = json.loads(runs[0].result.read_text())
    row = next(line for line in text.splitlines() if line.startswith("| [STM"))
    assert f"{found['test']['test']['bit_errors']:.2f}" in row and "almost 0" in row
    assert "finished after 2 updates" in row and f"{found['parameters']:,}" in row
    assert f"| *guessing* | {found['trivial']['test']['guessing']:.2f} |" in text
    assert "| [RMC" not in text and "* Copy, 1 to 10 vectors of 8 bits: RMC, 4 slots of 64; " in text
    assert text.startswith("# Of tasks\n\n## ") and "\n\nA surprise.\n\n" in text
    assert (kept / "tasks" / "copy" / "curves.png").read_bytes().startswith(PNG)
    assert (kept / "tasks" / "copy" / "lstm" / "learning_curve.png").read_bytes().startswith(PNG)


def test_models_are_compared_where_all_were_evaluated():
    ended_early, other = ([{"update": u} for u in updates] for updates in ((5, 10, 13), (5, 10, 15, 20)))
    assert tables.shared_updates([{"history": ended_early}, {"history": other}]) == 10
    assert tables.shared_updates([{"history": ended_early}, {"history": []}]) == tables.shared_updates([]) == 0


@pytest.mark.parametrize(("higher", "best"), [(True, 0.4), (False, 0.3)])
def test_models_are_compared_within_equal_updates(higher, best):
    history = [{"update": u, "valid_score": s} for u, s in ((5, 0.4), (10, 0.3), (15, 0.9), (20, 0.1))]
    result = {"metric": "score", "higher_is_better": higher, "history": history}
    assert tables.best_within(14, result) == best
    assert tables.best_within(4, result) is None


TINY = """
models: {}
tables:
  cartpole/masked:
    title: CartPole, velocities hidden
    options: --config cartpole/masked_lstm --total_timesteps 600 --env.n_envs 2 --algo.n_steps 50 --algo.batch_size 50
      --core.hidden_size 4 --eval.episodes 2 --threads 1
    levels: [10, 18]
    runs:
      lstm: {title: LSTM, seeds: [1, 2]}
      gru: {title: GRU, options: --core.name gru}
      diverging: {title: far too fast, options: --algo.learning_rate 1e38 --algo.max_grad_norm 1e38}
  tasks/parity:
    title: Parity
    options: --task.name parity --task.max_length 8 --total_updates 20 --training.eval_every 5 --training.batch_size 8
      --training.eval_size 50 --core.hidden_size 4
    runs:
      diverging: {title: far too fast, options: --core.name lstm --training.learning_rate 1e38}
      gru: {title: GRU, options: --core.name gru, seeds: [1, 2]}
"""


@pytest.mark.slow
def test_the_queue_trains_agents_and_models_and_draws_what_they_showed(kept, monkeypatch):
    monkeypatch.setattr(run_list, "LIST", kept / "runs.yaml")
    run_list.LIST.write_text(TINY)
    assert queue.main([]) == 1  # two have diverged
    for table in run_list.read_tables().values():
        found = {run.name: result for run, result in table.read().items()}
        assert {name for name, result in found.items() if result["outcome"] != "finished"} == {"diverging"}
        assert found.pop("diverging")["outcome"] == "diverged" and len(found) == len(table.runs) - 1
        assert (kept / table.name / "curves.png").read_bytes().startswith(PNG)
        assert all((kept / table.name / name / "learning_curve.png").exists() for name in found)
    agents, models = ((kept / kind / "README.md").read_text() for kind in ("cartpole", "tasks"))
    assert (
        "| [LSTM, seed 2](masked/lstm_s2/results.json) | +" in agents and "| above 10 | above 18 | commit |" in agents
    )
    assert "| **LSTM, mean of 2 (lowest to highest)** | +" in agents and ", diverged |" in agents
    assert "| **GRU, mean of 2 (lowest to highest)** | " in models and "| diverged after " in models
    assert all(
        "* far too fast (no curve): `relmem train " in page and "Not trained yet" not in page
        for page in (agents, models)
    )
    stamps = {path: path.stat().st_mtime_ns for path in kept.rglob("results.json")}
    assert queue.main([]) == 0 and stamps == {path: path.stat().st_mtime_ns for path in kept.rglob("results.json")}


def test_of_several_seeds_it_is_shown_how_many_passed_a_level_and_when():
    early, late = ({"agent_steps": 1000 * k, "minutes": k / 2} for k in (1, 3))
    assert tables.reached([early]) == "1,000 steps, 0.5 min" and tables.reached([None]) == "never"
    assert tables.reached([early, None, late]) == "2 of 3: 2,000 (1,000 to 3,000) steps, 1.0 (0.5 to 1.5) min"
    assert tables.reached([None, None]) == "0 of 2"


def test_of_several_seeds_the_mean_and_the_range_are_shown():
    assert tables.spread([1.0, 2.0, 6.0], ".1f") == "3.0 (1.0 to 6.0)"
    assert tables.spread([2], ",.0f") == tables.spread([2, 2], ",.0f") == "2"
    assert tables.spread([1.0, None], ".1f") == tables.spread([], ".1f") == ""


AGENT = {
    "kind": "agent",
    "core": "my_module:own",
    "commands": ["relmem train"],
    "versions": ["# relmem at commit abc1234+", "# Python 3"],
    "device": "some CPU",
    "threads": 2,
    "outcome": "finished",
    "mean_return_last_100": -3.25,
    "best_mean_return_100": -2.5,
    "frames_per_step": 4,
    "evaluation": {"mean": 2.0, "episodes": 8, "returns": [2.0] * 8, "complete": True},
    "steps": 12345,
    "minutes": 6.7,
    "first_reached": {"-10": None, "0": {"agent_steps": 9000, "minutes": 5.0}, "10": None, "18": None},
    "curve": [[10, 0.1, -21.0], [20, 0.2, -20.0]],
}


def test_the_results_of_agents_are_drawn_too(kept):
    of_row = {run.row: run for run in TABLES["pong/skip_4"].runs}
    whole, other, third = (of_row[row] for row in ("no memory", "LSTM, 128 cells", "STM, A3C"))
    cut = {"mean": 1.0, "episodes": 3, "returns": [1.0] * 3, "complete": False}
    early = AGENT | {
        "evaluation": None,
        "mean_return_last_100": None,
        "best_mean_return_100": None,
        "curve": [],
    }  # before the first episode ended
    cut_off = AGENT | {"evaluation": cut, "conditions": "Nothing else ran."}
    for run, result in ((whole, AGENT), (other, cut_off), (third, early)):
        run.result.parent.mkdir(parents=True)
        run.result.write_text(json.dumps(result))
    (kept / "pong" / "reference.json").write_text('{"lines": {"skip_4": {"a script": 7.5}}}')
    tables.draw()
    text = (kept / "pong" / "README.md").read_text()
    assert (
        "| *a script* | +7.5 |" in text
        and "* Pong, frame skip 4, from single frames: no memory (4 seeds); LSTM" in text
    )
    assert "| -3.2 | -2.5 | +2.0 | 12,345 | 6.7 | 31 | 9,000 steps, 5.0 min | never | never | abc1234+ |" in text
    assert "| +1.0 (3 games, then cut) |" in text and "|  |  | 12,345 |" in text
    assert "2 threads of some CPU; relmem at commit abc1234+.\n" in text
    assert "relmem at commit abc1234+. Nothing else ran.\n" in text
    assert (kept / "pong" / "skip_4" / "curves.png").read_bytes().startswith(PNG)


MEMORY = """
models: {lstm: {title: LSTM}, gru: {title: GRU}, rmc: {title: RMC}}
tables:
  memory/short: &short
    title: Short
    options: --config memory/tmaze
    range: [0, 10]
    runs:
      lstm: {seeds: [1, 2]}
      gru: {seeds: [1, 2]}
      rmc: {seeds: [1, 2]}
      lstm_rate: {model: lstm, title: rate 3e-4, seeds: [1, 2]}
  memory/long: {<<: *short, title: Long, range: [-1, 1]}
  memory/other: {<<: *short, title: Of another kind, range: []}
"""


def keep_memory(table, row, finals, best=None):
    for run, final in zip((run for run in table.runs if run.row == row), finals, strict=False):
        run.result.parent.mkdir(parents=True, exist_ok=True)
        found = {"mean_return_last_100": final, "best_mean_return_100": final if best is None else best}
        run.result.write_text(json.dumps(AGENT | found | {"core": "lstm"}))


def test_models_are_averaged_over_tasks_by_their_better_whole_rows(kept, monkeypatch):
    monkeypatch.setattr(run_list, "LIST", kept / "list.yaml")
    run_list.LIST.write_text(MEMORY)
    short, long, other = run_list.read_tables().values()
    keep_memory(short, "LSTM", [4.0, 4.0])
    tables.draw()
    assert "Over all tasks" not in (kept / "memory" / "README.md").read_text()  # it is one only
    keep_memory(short, "LSTM, rate 3e-4", [6.0, 8.0], best=9.0)
    keep_memory(long, "LSTM", [0.0, 0.5], best=0.5)
    keep_memory(long, "LSTM, rate 3e-4", [1.0])  # better, but not whole
    for table in (short, long, other):
        keep_memory(table, "GRU", [None, 0.0])  # nothing ended in time
    keep_memory(short, "RMC", [1.0, 1.0])
    tables.draw()
    text = (kept / "memory" / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith(("| LSTM |", "| GRU |", "| RMC |"))]
    assert lines[0].startswith("| LSTM | 0.68 (") and "| 0.82 (" in lines[0] and lines[0].endswith("| 2 |")
    assert lines[1].startswith("| GRU | 0.00 (") and len(lines) == 2
    assert "Short (0 to 10); Long (-1 to 1)." in text and "Not trained on every task yet: RMC." in text
    assert (kept / "memory" / "overall.png").read_bytes().startswith(PNG)


class Trainings:
    """Stands for ``relmem train``: notes its arguments, and may leave results."""

    def __init__(self, monkeypatch, code=0, outcome=None):
        self.commands, self.code, self.outcome = [], code, outcome
        monkeypatch.setattr(launch, "relmem", self)

    def __call__(self, argv):
        self.commands.append(argv)
        folder = queue.RUNS.joinpath(*argv[argv.index("--resume" if "--resume" in argv else "--run_dir") + 1 :][:1])
        folder.mkdir(parents=True, exist_ok=True)
        if self.outcome:
            (folder / "results.json").write_text(json.dumps(AGENT | {"outcome": self.outcome}))
        if self.outcome == "finished":
            (folder / "learning_curve.png").write_bytes(PNG)
        return self.code


def checkpoint(run):
    folder = queue.folder_of(run) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "step_1.zip").touch()


def test_a_run_is_trained_once_and_goes_on_where_it_was_ended(kept, monkeypatch):
    trainings, run = Trainings(monkeypatch, 130), RUNS["pong/skip_4/stm_s101"]
    folder = queue.folder_of(run)
    (folder / "checkpoints").mkdir(parents=True)  # nothing to continue from
    name = "pong/skip_4/stm_s101"
    assert queue.main([name]) == 130
    checkpoint(run)
    assert queue.main([name]) == 130
    with FileLock(folder.with_name(f".{folder.name}.queue")):
        assert queue.main([name]) == 0  # another process is at it
    assert not run.result.exists()
    trainings.code, trainings.outcome = 0, "finished"
    assert queue.main([name]) == 0 and run.result.exists()
    assert queue.main([name]) == 0
    begun, *resumed = trainings.commands
    assert begun == ["train", *run.options, "--run_dir", str(folder)]
    assert resumed == [["train", "--resume", str(folder), *run.options]] * 2


def test_unfinished_runs_come_first_then_the_order_of_the_list(kept, monkeypatch):
    trainings = Trainings(monkeypatch)
    runs = TABLES["pong/skip_4"].runs
    checkpoint(runs[5])
    assert queue.main(["pong/skip_4"]) == 0
    order = [argv[-1] if "--run_dir" in argv else argv[2] for argv in trainings.commands]
    assert order == [str(queue.folder_of(run)) for run in (runs[5], *runs[:5], *runs[6:])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "outcome", "kept_too"), [(1, "diverged", True), (1, None, False), (0, "stopped", False), (2, None, False)]
)
def test_a_run_that_fails_keeps_no_other_from_being_trained(kept, monkeypatch, code, outcome, kept_too):
    monkeypatch.setattr(run_list, "LIST", kept / "runs.yaml")  # a short one, as every result draws all tables anew
    run_list.LIST.write_text(TINY)
    trainings, runs = Trainings(monkeypatch, code, outcome), run_list.read_tables()["cartpole/masked"].runs
    assert queue.main(["cartpole/masked"]) == code
    assert len(trainings.commands) == len(runs) == 4
    assert all(run.result.exists() == kept_too for run in runs)


def test_a_run_that_somebody_trains_by_hand_is_left_alone(kept, monkeypatch):
    trainings, run = Trainings(monkeypatch), RUNS["pong/skip_4/stm_s101"]
    queue.folder_of(run).mkdir(parents=True)
    with FileLock(queue.folder_of(run) / ".lock"):
        assert queue.main(["pong/skip_4/stm_s101"]) == 0
    assert trainings.commands == [] and queue.folder_of(run).exists()


@pytest.mark.parametrize(("outcome", "test", "over"), [("finished", {}, True), ("finished", None, False)])
def test_a_task_is_over_once_it_is_tested(tmp_path, outcome, test, over):
    assert not queue.is_over(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"outcome": outcome, "test": test}))
    assert queue.is_over(tmp_path) == over


def test_pictures_of_one_run(tmp_path):
    pictures.draw_learning_curve(tmp_path / "none.png", np.array([]), np.array([]), "None yet", 4, 3.0)
    steps, returns = np.arange(300) * 10, np.arange(300.0)
    pictures.draw_learning_curve(tmp_path / "agent.png", steps, returns, "A long title " * 20, 4, 3.0)
    history = [{"update": u, "valid_accuracy": 0.1 * u} for u in range(5)]
    pictures.draw_task_curve(tmp_path / "task.png", history, "accuracy", "Task", {"guessing": 0.1, "more": 0.2}, 0.3)
    assert all(path.read_bytes().startswith(PNG) for path in tmp_path.glob("*.png"))
    assert pictures.running_mean(returns)[-1] == pytest.approx(returns[-100:].mean())
    assert pictures.running_mean(returns)[9] == pytest.approx(4.5)


def test_seeds_are_drawn_however_far_each_went(tmp_path):
    seeds = [pictures.Curve("stm", *np.array([[1.0, 5.0], [0.1, 0.5], [0.0, n]])) for n in range(3)]
    late = pictures.Curve("stm", *np.array([[9.0], [0.9], [1.0]]))
    for name, curves in (("both", seeds), ("apart", [*seeds, late])):
        rows = {"STM": curves, "LSTM": [late._replace(core="lstm")]}
        pictures.draw_curves(tmp_path / f"{name}.png", rows, "Seeds", "steps", "score", {"guessing": 0.5})
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)


def test_the_committed_tables_are_those_of_the_committed_figures():
    for kind in KINDS:
        assert (run_list.RESULTS / kind / "README.md").read_text() == tables.page(kind)


def test_every_committed_result_is_a_run_of_the_list():
    found = {path for kind in KINDS for path in (run_list.RESULTS / kind).glob("*/*/results.json")}
    assert found <= {run.result for run in RUNS.values()}


def agree(found, asked):
    """Whether two configs say the same, where both say anything: null is an option left open."""
    if isinstance(found, dict) and isinstance(asked, dict):
        return all(agree(found[key], asked[key]) for key in found.keys() & asked.keys())
    return found is None or asked is None or found == asked


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if run.result.exists()])
def test_committed_results_are_what_the_list_says(name):
    found = json.loads(RUNS[name].result.read_text())
    assert found["seed"] == found["config"]["seed"]
    assert agree(found["config"], config_of(RUNS[name])), f"{name} was trained with other options"


@pytest.mark.slow
def test_the_agent_that_comes_with_the_repository_wins_at_pong():
    folder = run_list.RESULTS / "pong" / "agents" / "stm"
    assert (folder / "model.zip").stat().st_size < 3e6
    env = make_vec_env("PongNoFrameskip-v4", 1, seed=0, frame_skip=4)
    assert evaluate(load(folder), env, episodes=1).returns[0] > 10
    env.close()
