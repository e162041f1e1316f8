"""Train what the tables of results/tasks lack, and keep what came out.

    python -m benchmarks.tasks                           # every run without a result, one after the other
    python -m benchmarks.tasks copy priority_sort/lstm   # some tables, or single runs

Each trains on one thread, in a run folder below runs/tasks, where an interrupted one is continued by the same command.
Started a second time in another terminal, the command takes the runs that the first one has not begun.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from benchmarks import results, task_tables
from benchmarks.task_tables import Run, Table
from relmem.cli import main as relmem
from relmem.common.checks import require_choice
from relmem.experiment.files import replacing
from relmem.experiment.folder import RunFolder

SEED = 1
RUNS = Path("runs", "tasks")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="TABLE[/RUN]", help="default: all")
    try:
        chosen = choose(parser.parse_args().runs)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    RUNS.mkdir(parents=True, exist_ok=True)
    for table, run in chosen:
        try:
            with FileLock(RUNS / f"{table.name}-{run.name}.lock", blocking=False):
                code = 0 if table.result(run).exists() else train(table, run)
        except Timeout:  # another process is at it
            continue
        if code:
            return code
    return 0


def choose(names: list[str]) -> list[tuple[Table, Run]]:
    """The runs of these names, in the order of the tables.

    :raises ValueError: if a name is unknown
    """
    tables = task_tables.read_tables()
    every = {f"{table.name}/{run.name}": (table, run) for table in tables.values() for run in table.runs}
    for name in names:
        require_choice("table or run", name, [*tables, *every])
    return [both for key, both in every.items() if not names or key in names or key.split("/")[0] in names]


def train(table: Table, run: Run) -> int:
    """Train until the run is over, then record it.

    :return: exit code, other than 0 where the training was stopped
    :raises ValueError: if its folder is in use by a run that was started in another way
    """
    folder = RunFolder(RUNS / table.name / run.name, ".pt")
    options = [*run.options, "--seed", str(SEED)]
    print(f"\n{table.title}: {run.title}", flush=True)
    if folder.has_checkpoint():
        code = relmem(["train", "--resume", str(folder.path), *options])  # refused if the row has changed
    else:
        if folder.path.exists():  # it was ended before there was anything to continue
            folder.hold()
            folder.release()
            shutil.rmtree(folder.path)
        code = relmem(["train", *options, "--run_dir", str(folder.path)])
    if code == 0:
        record(folder.path, table.result(run))
    return code


def record(folder: Path, result: Path) -> None:
    """Keep the figures and the picture of a finished run, and draw the tables anew.

    :raises ValueError: if the run is not over
    """
    if json.loads((folder / "results.json").read_text())["test"] is None:
        raise ValueError(f"the run in {folder} is not over")
    with FileLock(RUNS / "record.lock"):
        result.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "learning_curve.png", result.parent)
        with replacing(result) as file:
            file.write((folder / "results.json").read_bytes())
        results.draw()


if __name__ == "__main__":
    sys.exit(main())
