"""The tables of supervised results: which runs they have, how each is trained, what the papers report beside it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "results" / "tasks"


@dataclass(frozen=True)
class Run:
    """One row.

    :param name: of its folder, below that of its table
    :param title: the model and its sizes
    :param options: of ``relmem train``, without seed and run folder
    :param paper: what the paper reports; empty where it has no such row
    """

    name: str
    title: str
    options: tuple[str, ...]
    paper: str


@dataclass(frozen=True)
class Table:
    """Runs on one task.

    :param source: of the papers' figures
    :param note: what was found out about surprises
    :param tests: of what length or size the test sets are, by name, where the title does not say
    """

    name: str
    title: str
    source: str
    note: str
    tests: dict[str, str] = field(hash=False)
    runs: tuple[Run, ...]

    def result(self, run: Run) -> Path:
        """Where the result of a run is kept."""
        return FOLDER / self.name / run.name / "results.json"


def read_tables() -> dict[str, Table]:
    """The tables of ``task_tables.yaml`` by name."""
    content = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return {name: _table(name, table, content["models"]) for name, table in content["tables"].items()}


def _table(name: str, table: dict, models: dict) -> Table:
    runs = []
    for run, own in table["runs"].items():
        chain = [{"model": run if run in models else None} | (own or {})]
        while model := chain[0].get("model"):
            chain.insert(0, models[model])
        title = ", ".join(fields["title"] for fields in chain if "title" in fields)
        options = " ".join([table["options"], *(fields.get("options", "") for fields in chain)])
        runs.append(Run(run, title, tuple(shlex.split(options)), chain[-1].get("paper", "")))
    return Table(name, table["title"], table["source"], table.get("note", ""), table.get("tests", {}), tuple(runs))
