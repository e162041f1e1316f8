"""Draw every table and picture of results/tasks and results/pong from the figures kept there: ``make results``.

Nothing in them is typed by hand but the papers' figures, which stand in ``task_tables.yaml``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.task_tables import FOLDER, ROOT, Table, read_tables

PONG = ROOT / "results" / "pong"
TASKS_INTRO = """# Supervised tasks

Drawn by `make results` from the `results.json` of each run; `python -m benchmarks.tasks` trains them. Every run has one
thread of a CPU, and the time that it was given in advance. A test score is that of the weights that did best on the
validation set. The *trivial level* is what a strategy without the sought ability reaches (see
[docs/tasks.md](../../docs/tasks.md)). The papers' figures are of larger models, trained for longer, unless a table says
otherwise.
"""

PONG_INTRO = """# Pong

Return is the mean over the last 100 training episodes, from sampled actions. Drawn by `make results` from figures that
`python -m benchmarks.record_run` reads off the logs of each run.
"""


def draw() -> None:
    """Write the tables, and a picture for each on tasks, of whatever results there are."""
    for table in read_tables().values():
        if results := read(table):
            draw_curves(table, results, FOLDER / table.name / "curves.png")
    (FOLDER / "README.md").write_text(tasks_readme())
    (PONG / "README.md").write_text(pong_readme())


def tasks_readme() -> str:
    """The tables of supervised results that have any."""
    found = {table: results for table in read_tables().values() if (results := read(table))}
    return "\n".join([TASKS_INTRO, *(section(table, results) for table, results in found.items())])


def read(table: Table) -> dict[str, dict[str, Any]]:
    """The results of a table that exist, by the name of the run."""
    paths = {run.name: table.result(run) for run in table.runs}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def section(table: Table, results: dict[str, dict[str, Any]]) -> str:
    """A table in Markdown, with its picture and how each run came about."""
    any_result = next(iter(results.values()))
    scores = [(name, metric) for name, set_ in any_result["test"].items() for metric in set_ if metric != "loss"]
    rows: list[list[str]] = []
    for run in table.runs:
        if run.name in results:
            r = results[run.name]
            rows.append(
                [
                    f"[{run.title}]({table.name}/{run.name}/results.json)",
                    *(show(metric, r["test"][name][metric]) for name, metric in scores),
                    run.paper,
                    f"{r['parameters']:,}",
                    length(r),
                    f"{r['minutes']:.0f}",
                ]
            )
    for level, value in any_result["trivial"]["test"].items():
        of_sets = [any_result["trivial"].get(name, {}).get(level, value) for name, _ in scores]
        shown = [show(m, v) if m == any_result["metric"] else "" for (_, m), v in zip(scores, of_sets, strict=True)]
        rows.append([f"*{level}*", *shown, "", "", "", ""])
    heads = [metric.replace("_", " ") + ("" if name == "test" else f", {name}") for name, metric in scores]
    lines = [
        f"## {table.title}",
        "",
        *grid(["", *heads, "paper", "parameters", "trained for", "minutes"], rows),
        "",
        f"Paper: {table.source}." if table.source else "The papers report no figures at these sizes.",
        "",
        f"![Learning curves]({table.name}/curves.png)",
        "",
    ]
    for run in table.runs:
        if run.name in results:
            r = results[run.name]
            about = ", ".join(line.removeprefix("# ") for line in r["versions"] if line.startswith("#"))
            lines.append(f"* {run.title}: `{r['commands'][0]}`, seed {r['seed']}; {about}.")
    return "\n".join([*lines, ""])


def length(result: dict[str, Any]) -> str:
    """How long a training took, or did not suffice."""
    best, converged = result["best"], result["converged"]
    unit = "epochs" if "epochs" in best else "updates"
    if converged:
        return f"converged in {converged[unit]:,g} {unit}"
    total = result["history"][-1]["update"] / best["updates"] * best[unit]
    return f"{total:,.4g} {unit}" if unit == "epochs" else f"{total:,.0f} {unit}"


def show(metric: str, value: float) -> str:
    return f"{value:.1%}" if metric in ("accuracy", "exact") else f"{value:.2f}"


def draw_curves(table: Table, results: dict[str, dict[str, Any]], path: Path) -> None:
    """The metric on the validation set, of all models, against updates and against minutes."""
    metric = next(iter(results.values()))["metric"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_update, by_minute = figure.subplots(1, 2, sharey=True)
    titles = {run.name: run.title for run in table.runs}
    for name, result in results.items():
        values = [entry[f"valid_{metric}"] for entry in result["history"]]
        by_update.plot([entry["update"] for entry in result["history"]], values, label=titles[name])
        by_minute.plot([entry["seconds"] / 60 for entry in result["history"]], values)
    for axes, label in ((by_update, "updates"), (by_minute, "minutes")):
        for level, value in next(iter(results.values()))["trivial"]["valid"].items():
            axes.axhline(value, linestyle="--", color="tab:gray", label=level)
        axes.set(xlabel=label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    by_update.set(ylabel=metric.replace("_", " "))
    by_update.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    by_update.legend(frameon=False)
    figure.suptitle(table.title)
    figure.savefig(path, dpi=110)


def pong_readme() -> str:
    """The table of the runs on Pong, which ``record_run`` keeps."""
    found = {path.parent.name: json.loads(path.read_text()) for path in sorted(PONG.glob("*/figures.json"))}
    levels = ("0", "10", "18")
    heads = ["run", "return at the end", "agent steps", "minutes", *(f"above {level}" for level in levels)]
    rows = [
        [
            f"[{name}]({name}/figures.json)",
            f"{f['mean_return_last_100']:+.1f}",
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


def reached(level: dict[str, float] | None) -> str:
    return "never" if level is None else f"{level['agent_steps']:,} steps, {level['minutes']:.1f} min"


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


if __name__ == "__main__":
    draw()
