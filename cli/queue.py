"""Train the runs of ``results/runs.yaml`` that have no result yet, and keep what they showed.

    python -m relmem.cli.queue                                # all, one after the other
    python -m relmem.cli.queue tasks/copy pong/skip_4/stm_s101   # some tables, or single runs
    python -m relmem.cli.queue --processes 4                  # side by side, as `make trainings` does

Every training works on one thread; see ``launch`` for their order and for what is left alone. Run folders are below
runs/.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from ..common.checks import require_choice
from ..common.files import replacing
from ..common.output import warn
from ..experiment import tables
from ..experiment.folder import is_over
from ..experiment.run_list import Run, read_tables
from .launch import Launcher, Training, launcher

RUNS = Path("runs")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="TABLE[/RUN]", help="default: all")
    parser.add_argument("--processes", type=int, default=1, help="how many work side by side")
    args = parser.parse_args(argv)
    try:
        chosen = choose(args.runs)
    except ValueError as error:
        parser.error(str(error))
    return work(chosen, launcher("local", args.processes))


def choose(names: Sequence[str]) -> list[Run]:
    """The runs of these names, in the order of the list."""
    found = read_tables()
    every = {f"{run.table}/{run.name}": run for table in found.values() for run in table.runs}
    for name in names:
        require_choice("table or run", name, [*found, *every])
    return [run for key, run in every.items() if not names or key in names or run.table in names]


def work(runs: Sequence[Run], launch: Launcher) -> int:
    """Train what has no result.

    :return: exit code of the launcher
    """
    missing = {Training(folder_of(run), run.options): run for run in runs if not run.result.exists()}
    return launch(list(missing), lambda training, code: keep(missing[training], code))


def keep(run: Run, code: int) -> None:
    """Keep the figures and the picture of a training that has ended, if it is over."""
    folder = folder_of(run)
    if code < 128 and is_over(folder):
        record(folder, run.result)
    elif not code:
        warn(f"the run in {folder} left no final results: nothing is kept of it")


def folder_of(run: Run) -> Path:
    return RUNS / run.table / run.name


def record(folder: Path, result: Path) -> None:
    """Keep the figures and the picture of a finished run, and draw the tables anew."""
    with FileLock(RUNS / ".record"):
        result.parent.mkdir(parents=True, exist_ok=True)
        if (folder / "learning_curve.png").exists():  # a training that diverged draws none
            shutil.copy(folder / "learning_curve.png", result.parent)
        with replacing(result) as file:  # so that it is whole wherever it exists
            file.write((folder / "results.json").read_bytes())
        tables.draw()


if __name__ == "__main__":
    sys.exit(main())
