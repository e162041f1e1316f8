"""Train the runs of ``results/runs.yaml`` that have no result yet, and keep what they showed.

    python -m relmem.experiment.queue                                # all, one after the other
    python -m relmem.experiment.queue tasks/copy pong/skip_4/stm_s101   # some tables, or single runs
    python -m relmem.experiment.queue --processes 4                  # side by side, as `make trainings` does

Every process works on one thread and takes the first run of the list that no other process has, those first that an
earlier start left unfinished. Run folders are below runs/.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ..cli import main as relmem
from ..common.checks import require_choice
from ..common.files import replacing
from . import tables
from .folder import RunFolder
from .tables import Run

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
    return side_by_side(args.processes, args.runs) if args.processes > 1 else work(chosen)


def choose(names: Sequence[str]) -> list[Run]:
    """The runs of these names, in the order of the list."""
    found = tables.read_tables()
    every = {f"{run.table}/{run.name}": run for table in found.values() for run in table.runs}
    for name in names:
        require_choice("table or run", name, [*found, *every])
    return [run for key, run in every.items() if not names or key in names or run.table in names]


def side_by_side(processes: int, names: Sequence[str]) -> int:
    """Start this module several times, and wait for all. The exit code is the greatest of theirs."""
    command = [sys.executable, "-m", "relmem.experiment.queue", *names]
    workers = [subprocess.Popen(command) for _ in range(processes)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to every worker, which saves and ends

    def forward(number: int, _: object) -> None:
        for worker in workers:
            worker.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    return max(abs(worker.wait()) for worker in workers)


def work(runs: Sequence[Run]) -> int:
    """Train what has no result and no other process trains, unfinished runs first.

    :return: exit code: that of the training that a signal ended, or else the greatest, since a run that fails does not
        keep the others from being trained
    """
    torch.set_num_threads(1)
    worst = 0
    for run in sorted(runs, key=lambda run: not has_checkpoint(folder_of(run))):  # otherwise in the order of the list
        folder = folder_of(run)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout), FileLock(folder.with_name(f".{folder.name}.queue"), blocking=False):  # no other has it
            code = 0 if run.result.exists() else train(run)
            if code >= 128:
                return code
            worst = max(worst, code)
    return worst


def train(run: Run) -> int:
    """Train until the run is over, then keep its figures and its picture, and draw the tables anew.

    :return: exit code of the training
    """
    folder = folder_of(run)
    print(f"\n{run.table}: {run.title}", flush=True)
    if has_checkpoint(folder):
        code = relmem(["train", "--resume", str(folder), *run.options])  # refused if the row has changed
    else:
        if folder.exists():  # an earlier start ended before there was anything to continue
            with FileLock(folder / ".lock", blocking=False):  # which a run holds that was started in another way
                shutil.rmtree(folder)
        code = relmem(["train", *run.options, "--run_dir", str(folder)])
    if code < 128 and is_over(folder):
        record(folder, run.result)
    elif not code:
        print(f"The run in {folder} left no final results: nothing is kept of it.", file=sys.stderr)
    return code


def folder_of(run: Run) -> Path:
    return RUNS / run.table / run.name


def has_checkpoint(folder: Path) -> bool:
    """Whether there is anything to continue from."""
    return any(folder.glob("checkpoints/*")) or any(folder.glob("model.*"))


def is_over(folder: Path) -> bool:
    """Whether a run has its results, and they are final: it has diverged, or a task has been tested too."""
    found = RunFolder(folder).read_results()
    outcome = found.get("outcome", "stopped")
    return outcome == "diverged" or (outcome != "stopped" and found.get("test", True) is not None)


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
