"""Many trainings: which there are, and the launchers that run them.

    trainings = [Training(Path("runs/cores/lstm"), ("--config", "cartpole/masked_lstm", "--seed", "1")), ...]
    code = launcher("local")(trainings, lambda training, code: print(training.folder, code))

Each training has a folder of its own, where it goes on if it was interrupted. A launcher takes those first that an
earlier start left unfinished, and leaves alone what another launcher, or somebody by hand, is training: a list may be
launched several times at once.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from filelock import FileLock, Timeout

from ..agents.distributed import require_ray
from ..common.checks import require_choice
from ..common.output import say, warn
from ..common.processors import available_processors
from ..experiment.folder import has_checkpoint
from ..experiment.stop import StopRequest
from . import main as relmem

LAUNCHERS = {"local": f"{__name__}:local", "ray": f"{__package__}.ray_launch:on_ray"}
"""By name, each the ``module:function`` that makes one, for so many trainings at a time (None: as many as there is room
for)."""

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
"""The environment of a training that has one processor for itself."""

POLL_SECONDS = 0.2


class Training(NamedTuple):
    """A training that is to be run."""

    folder: Path  # of the run; it need not exist
    options: tuple[str, ...]  # of ``relmem train``, without the run folder

    @property
    def log(self) -> Path:
        """Where it is kept what the training says, if that is not on the terminal."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def claim(self) -> FileLock | None:
        """Keep other launchers from running it, until the lock is released or this process ends. What an earlier start
        left before there was anything to continue from is removed.

        :return: None where somebody else is at it
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder.with_name(f".{self.folder.name}.queue"))
        try:
            lock.acquire(blocking=False)
            if self.folder.exists() and not has_checkpoint(self.folder):
                with FileLock(self.folder / ".lock", blocking=False):  # which a run holds that was started by hand
                    shutil.rmtree(self.folder)
        except Timeout:
            lock.release()
            return None
        return lock

    def arguments(self) -> list[str]:
        """The command line behind ``relmem`` that begins it or, where there is a checkpoint, goes on with it. What
        ``claim`` returned has to be held."""
        if has_checkpoint(self.folder):  # refused if the options have changed
            return ["train", "--resume", str(self.folder), *self.options]
        return ["train", *self.options, "--run_dir", str(self.folder)]


class Launcher(Protocol):
    """Runs trainings somewhere, and returns when all are over."""

    def __call__(self, trainings: Sequence[Training], ended: Callable[[Training, int], None]) -> int:
        """Claim each training, run ``relmem`` with its ``arguments()`` on one thread, and call ``ended``.

        A training that fails keeps no other from being run. At a signal (SIGINT, SIGTERM, SIGHUP) nothing new is
        started, and those that run get it too, which lets them save.

        :param trainings: those that are already over cost the seconds that it takes to see it
        :param ended: called in this process with each training that was run and its exit code
        :return: exit code: 128 plus the number of the signal that ended the work, or else the greatest of all
        """


def launcher(name: str = "local", processes: int | None = None) -> Launcher:
    """The launcher of a name.

    :param processes: how many trainings run at a time; None: as many as there is room for
    :raises ValueError: if the name is unknown, or what it needs is not installed
    """
    require_choice("launcher", name, LAUNCHERS)
    if name == "ray":
        require_ray()
    module, _, function = LAUNCHERS[name].partition(":")
    return getattr(importlib.import_module(module), function)(processes)


def local(processes: int | None = None) -> Launcher:
    """Trainings on this machine, one for each processor; a single one at a time in this process."""
    processes = processes or available_processors()
    return in_turn if processes == 1 else side_by_side(processes)


def in_turn(trainings: Sequence[Training], ended: Callable[[Training, int], None]) -> int:
    """A launcher that trains one after the other, in this process."""
    torch.set_num_threads(1)
    worst = 0
    for training in unfinished_first(trainings):
        try:
            lock = training.claim()
        except OSError as error:
            warn(f"cannot train {training.folder}: {error}")
            worst = max(worst, 1)
            continue
        if lock is None:
            continue
        try:
            say(f"\n{training.folder}: {' '.join(training.options)}")
            code = relmem(training.arguments())
            ended(training, code)
        finally:
            lock.release()
        if code >= 128:
            return code
        worst = max(worst, code)
    return worst


def side_by_side(processes: int) -> Launcher:
    """A launcher that runs each training in a process of its own, so many at a time, and keeps what it says in a log
    beside its folder."""

    def launch(trainings: Sequence[Training], ended: Callable[[Training, int], None]) -> int:
        waiting, codes = unfinished_first(trainings), [0]
        running: dict[subprocess.Popen[bytes], tuple[Training, FileLock]] = {}

        def start() -> None:
            while waiting and len(running) < processes:
                training = waiting.pop(0)
                try:
                    if lock := training.claim():
                        running[start_process(training)] = training, lock
                except OSError as error:  # or those that run would be left alone
                    warn(f"cannot train {training.folder}: {error}")
                    codes.append(1)

        def collect() -> None:
            for process in [process for process in running if process.poll() is not None]:
                training, lock = running.pop(process)
                try:
                    codes.append(process.returncode if process.returncode >= 0 else 128 - process.returncode)
                    say(f"{training.folder}: {how_it_ended(training, codes[-1])}; {len(running) + len(waiting)} to go")
                    ended(training, codes[-1])
                finally:
                    lock.release()

        with StopRequest() as stop:
            start()
            told = False
            while running:
                try:
                    time.sleep(POLL_SECONDS)
                    if stop and not told:
                        told = True
                        waiting.clear()
                        _pass_on(stop, running)
                    collect()
                    start()
                except KeyboardInterrupt:  # the second, which ends each of them at once
                    _pass_on(stop, running)
        return stop.exit_code or max(codes)

    return launch


def start_process(training: Training) -> subprocess.Popen[bytes]:
    """A training in a process of its own, which the terminal's Ctrl-C does not reach: it is passed on, once."""
    with training.log.open("ab") as log:
        say(f"{training.folder}: begins (all that it says: {training.log})")
        return subprocess.Popen(
            [sys.executable, "-m", "relmem.cli", *training.arguments()],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | ONE_THREAD, process_group=0,
        )  # fmt: skip


def how_it_ended(training: Training, code: int) -> str:
    """How a training ended, in words."""
    if code >= 128:
        return "stopped"
    if code == 0:
        return "over"
    last = training.log.read_text(errors="replace").strip().rpartition("\n")[2]
    return f"failed with exit code {code} ({last.removeprefix('relmem: ')})"


def _pass_on(stop: StopRequest, running: dict[subprocess.Popen[bytes], tuple[Training, FileLock]]) -> None:
    for process in running:
        process.send_signal(stop.signal or signal.SIGINT)


def unfinished_first(trainings: Sequence[Training]) -> list[Training]:
    """Those that were begun, and otherwise the order of the list."""
    return sorted(trainings, key=lambda training: not has_checkpoint(training.folder))
