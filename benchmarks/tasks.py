"""Train what the tables of results/tasks lack, and keep what came out.

    python -m benchmarks.tasks                           # every run without a result, one after the other
    python -m benchmarks.tasks copy priority_sort/lstm   # some tables, or single runs

Each trains in a run folder below runs/tasks, where an interrupted one is continued by the same command.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from benchmarks import results
from benchmarks.task_tables import Run, Table, read_tables
from relmem.agents.registry import unknown
from relmem.cli import main as relmem


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="TABLE[/RUN]", help="default: all")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    try:
        chosen = choose(args.runs)
    except ValueError as error:
        parser.error(str(error))
    for table, run in chosen:
        if not table.result(run).exists() and (code := train(table, run, args.seed)):
            return code
    return 0


def choose(names: list[str]) -> list[tuple[Table, Run]]:
    """The runs of these names, in the order of the tables.

    :raises ValueError: if a name is unknown
    """
    every = {f"{table.name}/{run.name}": (table, run) for table in read_tables().values() for run in table.runs}
    for name in names:
        if name not in every and name not in (known := {key.split("/")[0] for key in every}):
            raise ValueError(unknown("table or run", name, [*known, *every]))
    return [both for key, both in every.items() if not names or key in names or key.split("/")[0] in names]


def train(table: Table, run: Run, seed: int) -> int:
    """Train until the run is over, then record it.

    :return: exit code, other than 0 where the training was stopped
    """
    folder = Path("runs", "tasks", table.name, run.name)
    print(f"\n{table.title}: {run.title}", flush=True)
    start = [*run.options, "--seed", str(seed), "--run_dir", str(folder)]
    code = relmem(["train", *(["--resume", str(folder)] if folder.exists() else start)])
    if code == 0:
        record(folder, table.result(run))
    return code


def record(folder: Path, result: Path) -> None:
    """Keep the figures and the picture of a finished run, and draw the tables anew."""
    if json.loads((folder / "results.json").read_text())["test"] is None:
        raise ValueError(f"the run in {folder} is not over")
    result.parent.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "learning_curve.png"):
        shutil.copy(folder / name, result.parent / name)
    results.draw()


if __name__ == "__main__":
    sys.exit(main())
