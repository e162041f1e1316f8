"""The tables of results: which runs they list, and what those showed. ``make results`` draws them anew.

``results/runs.yaml`` lists the runs, ``intro.md`` and ``note.md`` hold the texts, the ``results.json`` of each run its
figures. Nothing in a ``README.md`` or a picture below ``results`` is typed there by hand.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..tasks import Task, make_task
from .pictures import draw_agents, draw_models

RESULTS = Path(__file__).parents[1] / "results"  # in a clone of the repository
LIST = RESULTS / "runs.yaml"
KINDS = ("pong", "tasks")
COMMIT = "relmem at commit "  # how a line of ``versions`` names it
LEVELS = ("0", "10", "18")  # of the mean return on Pong

Results = Mapping[str, Any]
"""What ``results.json`` holds."""


@dataclass(frozen=True)
class Run:
    """A row of a table, or one seed of it.

    :param table: name of its table, such as tasks/copy
    :param name: of its folder, below that of its table
    :param title: the model and its sizes
    :param options: of ``relmem train``, without the run folder
    :param paper: what the paper reports; empty where it has no such row
    """

    table: str
    name: str
    title: str
    options: tuple[str, ...]
    paper: str

    @property
    def result(self) -> Path:
        """Where the result is kept."""
        return RESULTS / self.table / self.name / "results.json"


@dataclass(frozen=True)
class Table:
    """Runs that are compared with each other.

    :param source: of the paper's figures
    :param tests: of what length or size the test sets are, by name, where the title does not say
    """

    name: str
    title: str
    source: str
    tests: dict[str, str] = field(hash=False)
    runs: tuple[Run, ...]

    def read(self) -> dict[Run, Results]:
        """The results that exist."""
        return {run: json.loads(run.result.read_text()) for run in self.runs if run.result.exists()}


def read_tables() -> dict[str, Table]:
    """The tables of the list, by name.

    :raises ValueError: if there is no list, as outside of a clone
    """
    if not LIST.exists():
        raise ValueError(f"there is no list of runs, '{LIST}': it is in a clone of the repository")
    content = yaml.safe_load(LIST.read_text())
    return {name: _table(name, table, content["models"]) for name, table in content["tables"].items()}


def _table(name: str, table: dict, models: dict) -> Table:
    runs = []
    for row, own in table["runs"].items():
        chain = [{"model": row if row in models else None} | (own or {})]
        while model := chain[0].get("model"):
            chain.insert(0, models[model])
        title = ", ".join(part["title"] for part in chain if "title" in part)
        options = shlex.split(" ".join([table["options"], *(part.get("options", "") for part in chain)]))
        seeds = chain[-1].get("seeds")
        for seed in seeds or [1]:
            suffix, named = (f"_s{seed}", f", seed {seed}") if seeds else ("", "")
            of_seed = (*options, "--seed", str(seed))
            runs.append(Run(name, row + suffix, title + named, of_seed, chain[-1].get("paper", "")))
    return Table(name, table["title"], table.get("source", ""), table.get("tests", {}), tuple(runs))


def draw() -> None:
    """Write a page for each kind of run, and a picture for each table that has results."""
    tables = read_tables().values()
    for kind in KINDS:
        (RESULTS / kind / "README.md").write_text(page(kind))
    for table in tables:
        results = {run.title: found for run, found in table.read().items() if found.get("curve", True)}
        if not results:
            continue
        path, first = RESULTS / table.name / "curves.png", next(iter(results.values()))
        if is_agent(first):
            draw_agents(path, results, table.title)
        else:
            draw_models(path, results, table.title, task_of(first).trivial("valid"), table.tests.get("test", ""))


def page(kind: str) -> str:
    """The tables of one kind that have results, and which rows have none yet."""
    found = {table: table.read() for table in read_tables().values() if table.name.startswith(f"{kind}/")}
    parts = [text(RESULTS / kind / "intro.md")]
    parts += [section(table, results) for table, results in found.items() if results]
    missing = {table: [run.title for run in table.runs if run not in results] for table, results in found.items()}
    if lines := [f"* {table.title}: {'; '.join(titles)}" for table, titles in missing.items() if titles]:
        parts.append("\n".join(["## Not trained yet", "", *lines]))
    return "\n\n".join(parts) + "\n"


def section(table: Table, results: Mapping[Run, Results]) -> str:
    """A table in Markdown, with its note, its picture, and how each run came about."""
    folder = table.name.partition("/")[2]
    rows = (agent_rows if is_agent(next(iter(results.values()))) else task_rows)(table, results)
    parts = [
        f"## {table.title}",
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
        f"Paper: {table.source}." if table.source else "",
        text(RESULTS / table.name / "note.md"),
        f"![Learning curves]({folder}/curves.png)",
        "\n".join(
            f"* {run.title} ([learning curve]({folder}/{run.name}/learning_curve.png)): {provenance(result)}"
            for run, result in results.items()
        ),
    ]
    return "\n\n".join(filter(None, parts))


def text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def is_agent(result: Results) -> bool:
    return result.get("kind") == "agent"


def heads(*names: str) -> list[Sequence[str]]:
    """The first two lines of a Markdown table."""
    return [names, ["---"] * len(names)]


def link(run: Run) -> str:
    return f"[{run.title}]({run.table.partition('/')[2]}/{run.name}/results.json)"


def task_rows(table: Table, results: Mapping[Run, Results]) -> list[Sequence[str]]:
    """What the models of a task reached, and below them the trivial levels."""
    first = next(iter(results.values()))
    scores = [(name, metric) for name, found in first["test"].items() for metric in found if metric != "loss"]
    sets = {name: table.tests.get(name, "" if name == "test" else name) for name, _ in scores}
    measured = [", ".join(filter(None, (metric.replace("_", " "), sets[name]))) for name, metric in scores]
    within = shared_updates(results.values())
    best = f"best validation in {within:,} updates"
    rows = heads("", *measured, "paper", best, "parameters", "trained for", "best after", "minutes")
    rows += [
        [
            link(run),
            *(show(metric, r["test"][name][metric]) for name, metric in scores),
            run.paper,
            show(r["metric"], best_within(within, r)),
            f"{r['parameters']:,}",
            f"{r['outcome']} after {progress(r, r['updates'])}",
            progress(r, r["best"]["updates"]) if r["best"] else "",  # the training diverged before any evaluation
            f"{r['minutes']:.0f}",
        ]
        for run, r in results.items()
    ]
    task = task_of(first)
    trivial = {name: task.trivial(name) for name in first["test"]}
    for level in trivial["test"]:
        values = [show(metric, trivial[name][level]) if metric == first["metric"] else "" for name, metric in scores]
        rows.append([f"*{level}*", *values, "", "", "", "", "", ""])
    return rows


def shared_updates(results: Iterable[Results]) -> int:
    """The last update at which all models were evaluated. The last evaluation of one is often none of the others'."""
    return max(set.intersection(*({entry["update"] for entry in r["history"]} for r in results)), default=0)


def best_within(updates: int, result: Results) -> float:
    """The best score on the validation set in the first updates; NaN where there was no evaluation."""
    scores = [entry[f"valid_{result['metric']}"] for entry in result["history"] if entry["update"] <= updates]
    return (max if result["higher_is_better"] else min)(scores, default=math.nan)


def task_of(result: Results) -> Task:
    """The task of a run, which knows its trivial levels, also those that were added after the run."""
    return make_task(**result["config"]["task"])


def progress(result: Results, updates: int) -> str:
    """So many updates of a run, in epochs where it has a fixed training set."""
    if result.get("epochs"):
        return f"{result['epochs'] * updates / result['updates']:.1f} epochs"
    return f"{updates:,} updates"


def show(metric: str, value: float) -> str:
    return f"{value:.1%}" if metric in ("accuracy", "exact") else f"{value:.2f}"


def agent_rows(table: Table, results: Mapping[Run, Results]) -> list[Sequence[str]]:
    """What agents reached, and when."""
    passed = [f"above {level}" for level in LEVELS]
    rows = heads("", "return at the end", "of most probable actions", "agent steps", "minutes", *passed, "commit")
    rows += [
        [
            link(run),
            signed(r["mean_return_last_100"]),
            evaluation(r["evaluation"]),
            f"{r['steps']:,}",
            f"{r['minutes']:.1f}",
            *(reached(r["first_reached"][level]) for level in LEVELS),
            commits(r)[0].removeprefix(COMMIT),
        ]
        for run, r in results.items()
    ]
    return rows


def evaluation(found: Mapping[str, Any] | None) -> str:
    """Mean return of the games at the end, and how many there were if not all of them ended."""
    if found is None:
        return ""
    if found["mean"] is None:
        return "no game ended"
    cut = found["complete"] is False and found["episodes"]
    return signed(found["mean"]) + (f" ({found['episodes']} games, then cut)" if cut else "")


def signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}"


def reached(level: Mapping[str, float] | None) -> str:
    return "never" if level is None else f"{level['agent_steps']:,} steps, {level['minutes']:.1f} min"


def provenance(result: Results) -> str:
    """The commands of a run, what else went on, the hardware and the commits."""
    threads = result["threads"] and f"{result['threads']} thread" + "s" * (result["threads"] > 1)
    machine = " of ".join(filter(None, (threads, result["device"])))
    facts = [*(f"`{command}`" for command in result["commands"]), machine, *commits(result)]
    return "; ".join(filter(None, facts)) + ". " * bool(result.get("conditions")) + result.get("conditions", ".")


def commits(result: Results) -> list[str]:
    return [line.removeprefix("# ") for line in result["versions"] if COMMIT in line] or [f"{COMMIT}unknown"]


if __name__ == "__main__":
    draw()
