"""Draw every table and picture of results/tasks and results/pong from the figures kept there: ``make results``.

Nothing in them is typed by hand but the papers' figures and the notes, which stand in ``task_tables.yaml``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import task_tables
from benchmarks.task_tables import ROOT, Run, Table, read_tables
from relmem.experiment.provenance import COMMIT
from relmem.tasks import Task, make_task

COLOURS = {
    "stm": "tab:blue",
    "rmc": "tab:orange",
    "lstm": "tab:green",
    "attentional_lstm": "tab:red",
    "gru": "tab:purple",
    "lstm_stm": "tab:cyan",
}  # one look for a core in every picture
PONG = ROOT / "results" / "pong"
TASKS_INTRO = """# Supervised tasks

Drawn by `make results` from the `results.json` of each run; `python -m benchmarks.tasks` trains them, one seed each, on
one thread, with bf16 allowed for matrix products. A run ends when it has converged, after the minutes of its row, or
after the updates of its config. Where a rate or a batch size differs from the config's, it was chosen by trials of two
or three minutes on seed 0, which were not kept.

* A test score is that of the weights that did best on the validation set; a column says when that was.
* Minutes are not equal work: two runs shared the machine, and tests ran beside some of them, so that the pace of a run
  varied, at times threefold. For a comparison at equal updates, a column has the best score on the validation set up to
  the last update at which all models of the table were evaluated. The left half of each picture goes by updates too.
* A score at 50 % has a standard error of 1.6 points on the validation set and 1.1 on the test set (associative
  retrieval: 0.5 and 0.4), and the best of many evaluations lies above their mean, also for a model that has learned
  nothing.
* In italics stands what strategies without the sought ability reach ([docs/tasks.md](../../docs/tasks.md)), as the
  present code computes it; a `results.json` holds the levels known when it was written.
* Where a title gives other sizes than the paper, the paper's figures stand beside ours for the order of the models, not
  for comparison.
"""

PONG_INTRO = """# Pong

Return is the mean over the last 100 training episodes, from sampled actions; beside it stands that of the games
played at the end with the most probable actions: of eight, those that end within 20 seconds, so that short games count
for more (how many they were stands beside it, where it was kept). Drawn by `make results` from figures that `python -m
benchmarks.record_run` reads off the logs of each run. A run by PPO was ended by hand once its mean was above +18, or at
the end of its budget; the two by A3C were stopped earlier. So the last figure is no plateau. The picture shows the runs
by PPO.

The settings were tuned on seed 1. Two runs with earlier settings are left out. An STM on seed 11 had 900,000
steps and two minibatches per rollout; after it, the STM was given more steps, in the end 1,000,000, and four
minibatches, which were chosen on seed 1. An LSTM on seed 14 had 32 environments and 32 steps instead of 16 and 64; it
stood at +7.7 after 777,000 steps, and the LSTM went back to 16 and 64.

![Mean return against agent steps and minutes](curves.png)
"""


def draw() -> None:
    """Write the tables, and a picture for each on tasks, of whatever results there are."""
    for table in read_tables().values():
        if results := read(table):
            draw_curves(table, results, task_tables.FOLDER / table.name / "curves.png")
    (task_tables.FOLDER / "README.md").write_text(tasks_readme())
    (PONG / "README.md").write_text(pong_readme())
    if runs := [run for run in read_pong().values() if run.get("algorithm") == "ppo"]:
        draw_pong(runs, PONG / "curves.png")


def tasks_readme() -> str:
    """The tables of supervised results that have any, and which rows have none yet."""
    found = {table: read(table) for table in read_tables().values()}
    sections = [section(table, results) for table, results in found.items() if results]
    missing = {t: [run.title for run in t.runs if run not in results] for t, results in found.items()}
    if lines := [f"* {table.title}: {'; '.join(titles)}" for table, titles in missing.items() if titles]:
        sections.append("\n".join(["## Not trained yet", "", *lines, ""]))
    return "\n".join([TASKS_INTRO, *sections])


def read(table: Table) -> dict[Run, dict[str, Any]]:
    """The results of a table that exist."""
    paths = {run: table.result(run) for run in table.runs}
    return {run: json.loads(path.read_text()) for run, path in paths.items() if path.exists()}


def section(table: Table, results: dict[Run, dict[str, Any]]) -> str:
    """A table in Markdown, with its picture and how each run came about."""
    first = next(iter(results.values()))
    scores = [(name, metric) for name, found in first["test"].items() for metric in found if metric != "loss"]
    sets = {name: table.tests.get(name, "" if name == "test" else name) for name, _ in scores}
    heads = [", ".join(filter(None, (metric.replace("_", " "), sets[name]))) for name, metric in scores]
    within = shared_updates(results.values())
    rows = [
        [
            f"[{run.title}]({table.name}/{run.name}/results.json)",
            *(show(metric, r["test"][name][metric]) for name, metric in scores),
            run.paper,
            show(r["metric"], best_within(within, r)),
            f"{r['parameters']:,}",
            length(r),
            progress(r, r["best"]["updates"]) if r["best"] else "",  # it diverged before any evaluation
            f"{r['minutes']:.0f}",
        ]
        for run, r in results.items()
    ]
    trivial = {name: task_of(first).trivial(name) for name in first["test"]}
    for level in trivial["test"]:
        values = [show(m, trivial[name][level]) if m == first["metric"] else "" for name, m in scores]
        rows.append([f"*{level}*", *values, "", "", "", "", "", ""])
    heads += ["paper", f"best validation in {within:,} updates", "parameters", "trained for", "best after", "minutes"]
    lines = [
        f"## {table.title}",
        "",
        *grid(["", *heads], rows),
        "",
        f"Paper: {table.source}.",
        "",
        *([table.note, ""] if table.note else []),
        f"![Learning curves]({table.name}/curves.png)",
        "",
        *(f"* {run.title}: {provenance(r)}." for run, r in results.items()),
        "",
    ]
    return "\n".join(lines)


def shared_updates(results: Iterable[dict[str, Any]]) -> int:
    """The last update at which all models were evaluated; the end of one is not among the evaluations of the others."""
    return max(set.intersection(*({entry["update"] for entry in r["history"]} for r in results)), default=0)


def best_within(updates: int, result: dict[str, Any]) -> float:
    """The best score on the validation set in the first updates; NaN where there was no evaluation."""
    scores = [entry[f"valid_{result['metric']}"] for entry in result["history"] if entry["update"] <= updates]
    return (max if result["higher_is_better"] else min)(scores, default=math.nan)


def task_of(result: dict[str, Any]) -> Task:
    """The task of a run, which knows its trivial levels, also those found out after the run."""
    return make_task(**result["config"]["task"])


def provenance(result: dict[str, Any]) -> str:
    """The commands, the hardware and the commits of a run."""
    threads = f"{result['threads']} thread" + "s" * (result["threads"] > 1)
    commits = [line.removeprefix("# ") for line in result["versions"] if line.startswith(COMMIT)]
    commands = [f"`{command}`" for command in result["commands"]]
    return "; ".join([*commands, f"{threads} of {result['device']}", *commits])


def length(result: dict[str, Any]) -> str:
    """How a training ended, and after how much."""
    return f"{result['outcome']} after {progress(result, result['updates'])}"


def progress(result: dict[str, Any], updates: int) -> str:
    """So many updates of a run, in epochs where it has a fixed training set."""
    if "epochs" in result:
        return f"{result['epochs'] * updates / result['updates']:.1f} epochs"
    return f"{updates:,} updates"


def show(metric: str, value: float) -> str:
    return f"{value:.1%}" if metric in ("accuracy", "exact") else f"{value:.2f}"


def draw_curves(table: Table, results: dict[Run, dict[str, Any]], path: Path) -> None:
    """The metric on the validation set, of all models, against updates and against minutes."""
    first = next(iter(results.values()))
    metric, trivial = first["metric"], task_of(first).trivial("valid")
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    by_update, by_minute = figure.subplots(1, 2, sharey=True)
    styles: dict[str, Iterator[str]] = defaultdict(lambda: itertools.cycle(("-", "--", ":", "-.")))
    for run, result in results.items():
        look = {"color": colour(result["core"]), "linestyle": next(styles[result["core"]])}
        values = [entry[f"valid_{metric}"] for entry in result["history"]]
        by_update.plot([entry["update"] for entry in result["history"]], values, label=run.title, **look)
        by_minute.plot([entry["seconds"] / 60 for entry in result["history"]], values, **look)
    for axes, label in ((by_update, "updates"), (by_minute, "minutes")):
        for (level, value), style in zip(trivial.items(), ("-", "--"), strict=False):
            axes.axhline(value, linewidth=1, color="tab:gray", linestyle=style, label=level)
        axes.set(xlabel=label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    by_update.set(ylabel=", ".join(filter(None, (metric.replace("_", " "), table.tests.get("test"), "validation"))))
    by_update.xaxis.set_major_formatter("{x:,.0f}")
    figure.legend(*by_update.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(table.title)
    figure.savefig(path, dpi=110)


def colour(core: str) -> str:
    """Of a core's lines in every picture; one for all cores of a user's own."""
    return COLOURS.get(core, "tab:brown")


def read_pong() -> dict[str, dict[str, Any]]:
    """The figures of the runs on Pong by name."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(PONG.glob("*/figures.json"))}


def draw_pong(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Mean return, one colour for each memory, against agent steps and minutes."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_step, by_minute = figure.subplots(1, 2, sharey=True)
    for run in runs:
        steps, minutes, means = zip(*run["curve"], strict=True)
        for axes, x in ((by_step, steps), (by_minute, minutes)):
            axes.plot(x, means, color=colour(run["core"]))
    for axes, label in ((by_step, "agent steps"), (by_minute, "minutes")):
        axes.axhline(18, linestyle="--", color="tab:gray", linewidth=1)
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    for core in sorted({run["core"] for run in runs}):
        by_step.plot([], [], color=colour(core), label=core.upper())
    by_step.set(ylabel="mean return of 100 episodes")
    by_step.xaxis.set_major_formatter("{x:,.0f}")
    by_step.legend(frameon=False)
    figure.suptitle("Pong, frame skip 4, from single frames: each line one seed")
    figure.savefig(path, dpi=110)


def pong_readme() -> str:
    """The table of the runs on Pong, which ``record_run`` keeps."""
    found = read_pong()
    levels = ("0", "10", "18")
    heads = [
        "run",
        "return at the end",
        "of most probable actions",
        "agent steps",
        "minutes",
        *(f"above {level}" for level in levels),
    ]
    rows = [
        [
            f"[{name}]({name}/figures.json)",
            f"{f['mean_return_last_100']:+.1f}",
            evaluation(f),
            f"{f['agent_steps']:,}",
            f"{f['minutes']:.1f}",
            *(reached(f["first_reached"][level]) for level in levels),
            str(f["seed"]),
            f["commit"],
        ]
        for name, f in found.items()
    ]
    lines = [PONG_INTRO, *grid([*heads, "seed", "commit"], rows)]
    for name, f in found.items():
        lines += ["", f"## {name}", "", f"`{f['command']}`", "", f["conditions"], "", f"![]({name}/learning_curve.png)"]
    return "\n".join(lines) + "\n"


def evaluation(figures: dict[str, Any]) -> str:
    """Mean return of the games at the end, and how many they were, where that was kept."""
    if figures.get("evaluation") is None:
        return "no game ended" if "evaluation" in figures else ""
    games = f" ({figures['evaluation_games']:.0f} of 8)" if figures.get("evaluation_games") else ""
    return f"{figures['evaluation']:+.1f}{games}"


def reached(level: dict[str, float] | None) -> str:
    return "never" if level is None else f"{level['agent_steps']:,} steps, {level['minutes']:.1f} min"


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    draw()
