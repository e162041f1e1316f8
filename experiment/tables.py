"""The tables of results: which runs they list, and what those showed. ``make results`` draws them anew.

``results/runs.yaml`` lists the runs, ``intro.md`` and ``note.md`` hold the texts, the ``results.json`` of each run its
figures. Nothing in a ``README.md`` or a picture below ``results`` is typed there by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from ..tasks import Task, make_task
from . import overall, run_list
from .compare import spread
from .pictures import Curve, draw_curves
from .provenance import COMMIT
from .run_list import Results, Run, Table, read_tables


def draw() -> None:
    """Write a page for each kind of run, and a picture for each table that has results."""
    tables = read_tables()
    for kind in {name.partition("/")[0] for name in tables}:
        (run_list.RESULTS / kind).mkdir(exist_ok=True)
        (run_list.RESULTS / kind / "README.md").write_text(page(kind))
        if found := overall.overall(of_kind(kind)):
            overall.draw(run_list.RESULTS / kind / overall.PICTURE, found)
    for table in tables.values():
        if results := {run: result for run, result in table.read().items() if result.get("curve", True)}:
            draw_picture(table, results)


def draw_picture(table: Table, results: Mapping[Run, Results]) -> None:
    """Draw the curves of all runs of a table."""
    first = next(iter(results.values()))
    levels = {f"{level:+d}": level for level in table.levels[-1:]} | reference(table)
    axes = "agent steps", "mean return of 100 episodes"
    if not is_agent(results):
        levels = task_of(first).trivial("valid")
        axes = "updates", comma(first["metric"].replace("_", " "), table.tests.get("test"), "validation")
    rows = {row: [curve(results[run]) for run in runs] for row, runs in by_row(results).items()}
    draw_curves(run_list.RESULTS / table.name / "curves.png", rows, table.title, *axes, levels)


def curve(result: Results) -> Curve:
    """How the mean return of an agent went, or the metric of a model on the validation set."""
    points = result.get("curve") or [
        (entry["update"], entry["seconds"] / 60, entry[f"valid_{result['metric']}"]) for entry in result["history"]
    ]
    steps, minutes, scores = np.array(points, dtype=float).T
    return Curve(result["core"], steps, minutes, scores, result.get("frames_per_step", 1))


def reference(table: Table) -> dict[str, float]:
    """What scripts reach, by their names, from ``reference.json`` of the kind of table."""
    kind, _, own = table.name.partition("/")
    found = text(run_list.RESULTS / kind / "reference.json")
    return json.loads(found)["lines"].get(own, {}) if found else {}


def of_kind(kind: str) -> dict[Table, dict[Run, Results]]:
    """The tables of one kind, and the results that exist."""
    return {table: table.read() for table in read_tables().values() if table.name.startswith(f"{kind}/")}


def page(kind: str) -> str:
    """The tables of one kind that have results, and which rows have none yet."""
    found = of_kind(kind)
    parts = [text(run_list.RESULTS / kind / "intro.md")]
    if over_all := overall.overall(found):
        parts.append(overall.section(over_all))
    parts += [section(table, results) for table, results in found.items() if results]
    missing = {table: titles([run for run in table.runs if run not in results]) for table, results in found.items()}
    words = {table: "; ".join(names) if found[table] else "all of it" for table, names in missing.items() if names}
    if lines := [f"* {table.title}: {names}" for table, names in words.items()]:
        parts.append("\n".join(["## Not trained yet", "", *lines]))
    return "\n\n".join(filter(None, parts)) + "\n"


def section(table: Table, results: Mapping[Run, Results]) -> str:
    """A table in Markdown, with its note, its picture, and how each run came about."""
    lines = (agent_lines if is_agent(results) else task_lines)(table, results)
    parts = [
        f"## {table.title}",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        f"Paper: {table.source}." if table.source else "",
        text(run_list.RESULTS / table.name / "note.md"),
        f"![Learning curves]({table.name.partition('/')[2]}/curves.png)",
        "\n".join(
            f"* {run.title} ({link(run, 'learning_curve.png', 'learning curve') or 'no curve'}): {origin(result)}"
            for run, result in results.items()
        ),
    ]
    return "\n\n".join(filter(None, parts))


def text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def is_agent(results: Mapping[Run, Results]) -> bool:
    return next(iter(results.values())).get("kind") == "agent"


def comma(*parts: str | None) -> str:
    return ", ".join(filter(None, parts))


def link(run: Run, file: str, words: str) -> str:
    """To a file of a run; nothing where there is none, as a training that diverged draws no curve."""
    exists = run.result.with_name(file).exists()
    return f"[{words}]({run.table.partition('/')[2]}/{run.name}/{file})" if exists else ""


def origin(result: Results) -> str:
    """The commands of a run, what else went on, the hardware and the commits."""
    threads = result["threads"] and f"{result['threads']} thread" + "s" * (result["threads"] > 1)
    machine = " of ".join(filter(None, (threads, result["device"])))
    source = [f"relmem at commit {commit}" for commit in commits(result)]
    facts = [*(f"`{command}`" for command in result["commands"]), machine, *source]
    return "; ".join(filter(None, facts)) + ". " * bool(result.get("conditions")) + result.get("conditions", ".")


def commits(result: Results) -> list[str]:
    return [line.removeprefix(COMMIT).strip() for line in result["versions"] if COMMIT in line] or ["unknown"]


def titles(runs: Iterable[Run]) -> list[str]:
    """One for each row that they are of."""
    rows = by_row(runs).items()
    return [f"{row} ({len(found)} seeds)" if len(found) > 1 else found[0].title for row, found in rows]


def by_row(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs that differ in nothing but their seeds, by the row that they are of."""
    return {row: list(found) for row, found in groupby(runs, key=lambda run: run.row)}


def entries(results: Mapping[Run, Results]) -> Iterator[tuple[str, Run, list[Results]]]:
    """What the lines of a table begin with and are about: each run, and all seeds of a row together."""
    for row, runs in by_row(results).items():
        yield from ((link(run, "results.json", run.title), run, [results[run]]) for run in runs)
        if len(runs) > 1:
            yield f"**{row}, mean of {len(runs)} (lowest to highest)**", runs[0], [results[run] for run in runs]


def agent_lines(table: Table, results: Mapping[Run, Results]) -> list[list[str]]:
    """What agents reached, and when."""
    passed = [f"above {level}" for level in table.levels]
    heads = [
        "",
        "return at the end",
        "best mean of 100",
        "of most probable actions",
        "agent steps",
        "minutes",
        "steps/s",
        *passed,
        "commit",
    ]
    lines = [heads, ["---"] * len(heads)]
    for begin, _, found in entries(results):
        diverged = len(found) == 1 and found[0]["outcome"] == "diverged"
        lines.append(
            [
                begin,
                spread([r["mean_return_last_100"] for r in found], "+.1f"),
                spread([r.get("best_mean_return_100") for r in found], "+.1f"),
                evaluation(found),
                spread([r["steps"] for r in found], ",.0f") + ", diverged" * diverged,
                spread([r["minutes"] for r in found], ".1f"),
                spread([r["steps"] / (60 * r["minutes"]) if r["minutes"] else None for r in found], ",.0f"),
                *(reached([r["first_reached"][str(level)] for r in found]) for level in table.levels),
                commits(found[0])[0] if len(found) == 1 else "",
            ]
        )
    empty = [""] * (len(heads) - 2)
    return lines + [[f"*{name}*", f"{value:+.1f}", *empty] for name, value in reference(table).items()]


def evaluation(found: Sequence[Results]) -> str:
    """Mean return of the games at the end, and how many there were if not all of them ended."""
    games = [r["evaluation"] or {} for r in found]
    mean = spread([game.get("mean") for game in games], "+.1f")
    if len(games) > 1 or games[0].get("complete", True) is not False:
        return mean
    return f"{mean} ({games[0]['episodes']} games, then cut)" if mean else "no game ended"


def reached(moments: Sequence[Mapping[str, float] | None]) -> str:
    """When a level was passed; of several seeds, how often, and when by those that did."""
    found = [moment for moment in moments if moment]
    often = f"{len(found)} of {len(moments)}" if len(moments) > 1 else "" if found else "never"
    steps, minutes = spread([m["agent_steps"] for m in found], ",.0f"), spread([m["minutes"] for m in found], ".1f")
    return ": ".join(filter(None, (often, f"{steps} steps, {minutes} min" if found else "")))


def task_lines(table: Table, results: Mapping[Run, Results]) -> list[list[str]]:
    """What the models of a task reached, and below them the trivial levels."""
    first = next(iter(results.values()))
    tests: Results = next((r["test"] for r in results.values() if r["test"]), {})  # none where the training diverged
    scores = [(name, score) for name, found in tests.items() for score in found if score != "loss"]
    sets = {"test": ""} | {name: name for name in tests if name != "test"} | dict(table.tests)
    within = shared_updates(r for r in results.values() if r["outcome"] != "diverged")
    measured = [comma(score.replace("_", " "), sets[name]) for name, score in scores]
    best = f"best validation in {within:,} updates"
    heads = ["", *measured, "paper", best, "parameters", "trained for", "best after", "minutes"]
    lines = [heads, ["---"] * len(heads)]
    for begin, run, found in entries(results):
        r = found[0]
        lines.append(
            [
                begin,
                *(spread([r["test"] and r["test"][name][score] for r in found], form(score)) for name, score in scores),
                run.paper,
                spread([best_within(within, r) for r in found], form(r["metric"])),
                spread([r["parameters"] for r in found], ",.0f"),
                f"{r['outcome']} after {progress(r, r['updates'])}" if len(found) == 1 else "",
                progress(r, r["best"]["updates"]) if len(found) == 1 and r["best"] else "",
                spread([r["minutes"] for r in found], ".0f"),
            ]
        )
    task, metric = task_of(first), first["metric"]
    trivial = {name: task.trivial(name) for name in tests}
    for level in trivial.get("test", {}):
        values = [format(trivial[name][level], form(score)) if score == metric else "" for name, score in scores]
        lines.append([f"*{level}*", *values, "", "", "", "", "", ""])
    return lines


def form(score: str) -> str:
    return ".1%" if score in ("accuracy", "exact") else ".2f"


def shared_updates(results: Iterable[Results]) -> int:
    """The last update at which all models were evaluated. The last evaluation of one is often none of the others'."""
    evaluated = [{entry["update"] for entry in r["history"]} for r in results]
    return max(set.intersection(*evaluated), default=0) if evaluated else 0


def best_within(updates: int, result: Results) -> float | None:
    """The best score on the validation set in the first updates; None where there was no evaluation."""
    found = [entry[f"valid_{result['metric']}"] for entry in result["history"] if entry["update"] <= updates]
    return (max if result["higher_is_better"] else min)(found, default=None)


def task_of(result: Results) -> Task:
    """The task of a run, which knows its trivial levels, also those that were added after the run."""
    return make_task(**result["config"]["task"])


def progress(result: Results, updates: int) -> str:
    """So many updates of a run, in epochs where it has a fixed training set."""
    if result.get("epochs"):
        return f"{result['epochs'] * updates / result['updates']:.1f} epochs"
    return f"{updates:,} updates"


if __name__ == "__main__":
    draw()
