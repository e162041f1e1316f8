"""The list of runs: ``results/runs.yaml``, which says what is trained and which runs are compared with each other."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

RESULTS = Path(__file__).parents[1] / "results"  # in a clone of the repository
LIST = RESULTS / "runs.yaml"

Results = Mapping[str, Any]
"""What ``results.json`` holds."""


@dataclass(frozen=True)
class Run:
    """A row of a table, or one seed of it."""

    table: str
    name: str  # of its folder, below that of its table
    row: str  # the model and its sizes
    title: str  # the same, and the seed where the row has several
    options: tuple[str, ...]  # of ``relmem train``, without the run folder
    paper: str  # what the paper reports; empty where it has no such row
    model: str = ""  # the model alone, whatever its rate

    @property
    def result(self) -> Path:
        """Where the result is kept."""
        return RESULTS / self.table / self.name / "results.json"


@dataclass(frozen=True)
class Table:
    """Runs that are compared with each other."""

    name: str  # of its folder: its kind, and its own below that
    title: str
    runs: tuple[Run, ...]
    source: str = ""  # of the paper's figures
    tests: Mapping[str, str] = field(default_factory=dict, hash=False)  # sizes of test sets that the title does not say
    levels: Sequence[int] = field(default=(), hash=False)  # mean returns, of which it is shown when agents passed them
    range: Sequence[float] = field(default=(), hash=False)  # the returns that are 0 and 1 in a mean over tables

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
            paper, model = chain[-1].get("paper", ""), chain[0].get("title", title)
            runs.append(Run(name, row + suffix, title, title + named, of_seed, paper, model))
    own = {key: value for key, value in table.items() if key not in ("options", "runs")}
    return Table(name, runs=tuple(runs), **own)
