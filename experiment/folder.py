"""A run folder: everything that one training run leaves behind.

``config.yaml`` (resolved), ``command.txt``, ``versions.txt``, ``results.json``, ``learning_curve.png``, TensorBoard
events and ``checkpoints/``; of an agent ``episodes.csv`` and ``model.zip``, of a task ``model.pt``.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ..agents.saved import newest, steps_of
from ..common.files import replacing
from ..common.output import warn
from ..common.saved import NotSealed, require_seal
from .provenance import COMMIT, commit, versions

CHECKPOINT = "step_"  # then the step, as the name of a checkpoint
CHECKPOINT_SECONDS = 300.0  # between two checkpoints
FIRST_CHECKPOINT_SECONDS = 30.0  # after the training began, or after one that could not be written
EVALUATIONS = "evaluations"  # in results.json: those of ``relmem evaluate``


class RunFolder:
    """The files of a run, and who may write to them.

    :param path: the folder; it need not exist yet
    :param ending: of the files that hold a model: .zip of an agent, or .pt of PyTorch
    :param keep: newest checkpoints that are kept
    """

    def __init__(self, path: Path, ending: str = ".zip", keep: int = 3) -> None:
        self.path, self.ending, self.keep = path, ending, keep
        self.config = path / "config.yaml"
        self.command = path / "command.txt"
        self.versions = path / "versions.txt"
        self.episodes = path / "episodes.csv"
        self.evaluations = path / "evaluations.csv"
        self.checkpoints = path / "checkpoints"
        self.model = path / f"model{ending}"
        self.results = path / "results.json"
        self.curve = path / "learning_curve.png"
        self.missing: dict[str, OSError | None] = {}  # what could not be written, None where it could later on
        self._due = time.monotonic() + FIRST_CHECKPOINT_SECONDS
        self._lock = FileLock(path / ".lock")

    # ---------------------------------------------------------------- before the training

    def hold(self) -> None:
        """Keep others from training this run, until ``release`` or the end of this process, and clear away files that
        an earlier process left half written.

        :raises ValueError: if another one trains it
        """
        with _possible(f"write to run folder '{self.path}'"):
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                raise ValueError(f"the run in '{self.path}' is being trained by another process") from None
            for partial in (*self.path.glob(".*.partial"), *self.checkpoints.glob(".*.partial")):
                partial.unlink()

    def release(self) -> None:
        """Let others continue this run."""
        with suppress(OSError):
            self._lock.release()

    def require_free(self) -> None:
        """Runs are never overwritten.

        :raises ValueError: if the folder holds anything, or is a file
        """
        with _possible(f"make run folder '{self.path}'"):
            full = self.path.exists() and any(self.path.iterdir())
        if full:
            saved = [*self.path.glob("model.*"), *self.path.glob("checkpoints/*")]
            way = f"continue the run that it holds with --resume {self.path}" if saved else "remove it"
            raise ValueError(f"run folder '{self.path}' is not empty: choose another --run_dir, or {way}")

    def create(self, config: str, argv: Sequence[str]) -> None:
        """Make the folder and write down how the run came about.

        :raises ValueError: if the folder cannot be made, or another process has just made it
        """
        with _possible(f"make run folder '{self.path}'"):
            self.checkpoints.mkdir(parents=True)
            self.hold()
            self.record(config, argv)

    def record(self, config: str, argv: Sequence[str]) -> None:
        """Write down by which command, with which options and at which commit the run begins or goes on."""
        with replacing(self.config) as config_file:
            config_file.write(config.encode())
        resumed = self.versions.exists()
        with self.command.open("a", encoding="utf-8") as commands, self.versions.open("a", encoding="utf-8") as file:
            commands.write(f"relmem train {shlex.join(argv)}\n")
            file.write(versions() if not resumed else f"{COMMIT} {commit()} (resumed)\n" if commit() else "")

    # ---------------------------------------------------------------- checkpoints

    def newest_checkpoint(self) -> Path:
        """The model that was trained longest, saved at the end of the run or before. Those that are not whole are
        passed over, with a warning.

        :raises ValueError: if there is none
        """
        saved = *self.path.glob(self.model.name), *self.checkpoints.glob(f"*{self.ending}")
        if (found := newest(saved, steps_taken)) is None:
            raise ValueError(f"run folder '{self.path}' holds no checkpoint to continue from")
        return found

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() >= self._due

    def checkpoint(self, model: Any, step: int) -> None:
        """Save a checkpoint if it is time: every few minutes, the first one soon. The newest ``keep`` are kept.

        :param step: of the training, for the file's name
        """
        if not self.is_due():
            return
        self._due = time.monotonic() + FIRST_CHECKPOINT_SECONDS
        with self.attempt("a checkpoint"):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            save(model, self.checkpoints / f"{CHECKPOINT}{step:012d}{self.ending}")
            for old in sorted(self.checkpoints.glob(f"{CHECKPOINT}{'[0-9]' * 12}{self.ending}"))[: -self.keep]:
                old.unlink()
            self._due = time.monotonic() + CHECKPOINT_SECONDS

    # ---------------------------------------------------------------- what a run can do without

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Write something without which a training can go on: where that fails, it is said once."""
        try:
            yield
        except OSError as error:
            if what not in self.missing:
                warn(f"cannot write {what}, and goes on without: {error}")
            self.missing[what] = error
        else:
            if what in self.missing:
                self.missing[what] = None

    def save(self, model: Any) -> Path | None:
        """Save the model of a run that ends, if not here then in a folder for temporary files.

        :return: the file; None if it could be written nowhere
        """
        with self.attempt("the model"):
            self.path.mkdir(parents=True, exist_ok=True)
            save(model, self.model)
            return self.model
        with self.attempt("the model in a temporary folder either"):
            folder = Path(tempfile.mkdtemp(prefix=f"{self.path.name}_"))
            save(model, folder / self.model.name)
            return folder / self.model.name
        return None

    def write_results(self, results: dict[str, Any]) -> None:
        """Write ``results.json``, beside what the folder knows itself and the evaluations that were added to it."""
        with self.attempt("results.json"), self._alone():
            added = {key: value for key, value in self.read_results().items() if key == EVALUATIONS}
            files = {"commands": self.command, "versions": self.versions}
            known = {name: file.read_text().splitlines() if file.exists() else [] for name, file in files.items()}
            self._replace_results(added | results | known)

    def add_evaluation(self, evaluation: dict[str, Any]) -> None:
        """Add an evaluation to those in ``results.json``.

        :raises OSError: if that cannot be written, or is not whole
        """
        with self._alone():
            results = self.read_results()
            if not results and self.results.exists():
                raise OSError(f"'{self.results}' is not whole")
            self._replace_results(results | {EVALUATIONS: [*results.get(EVALUATIONS, []), evaluation]})

    def _replace_results(self, results: dict[str, Any]) -> None:
        text = json.dumps(results, default=str)
        # JSON knows no NaN and no infinity, as a diverged training has them.
        finite = json.loads(text, parse_constant=lambda _: None)
        with replacing(self.results) as file:
            file.write(f"{json.dumps(finite, indent=1)}\n".encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process change ``results.json`` meanwhile."""
        with FileLock(self.path / ".results.lock"):
            yield

    def read_results(self) -> dict[str, Any]:
        """What ``results.json`` holds; nothing where it is not whole."""
        try:
            results = json.loads(self.results.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return results if isinstance(results, dict) else {}

    def tensorboard_command(self) -> str:
        """How to watch the run, as one would type it here."""
        program = "tensorboard" if shutil.which("tensorboard") else str(Path(sys.executable).with_name("tensorboard"))
        return shlex.join([program, "--logdir", str(self.path)])


def make_default_path(name: str) -> Path:
    """Make ``runs/<name>_<time>``, with a number behind it where runs start within one second.

    :raises ValueError: if it cannot be made
    """
    stem = f"{name}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    for number in itertools.count(1):
        path = Path("runs", stem if number == 1 else f"{stem}_{number}")
        with _possible(f"make run folder '{path}'"), suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return path


@contextmanager
def _possible(what: str) -> Iterator[None]:
    """What the system refuses is said in one sentence.

    :raises ValueError: instead of an OSError
    """
    try:
        yield
    except OSError as error:
        raise ValueError(f"cannot {what}: {error.strerror}") from error


def steps_taken(saved: Path) -> int:
    """How far a saved model was trained.

    :raises ValueError: if the file is not whole, or is called like no checkpoint of ours
    """
    if not re.fullmatch(rf"model|{CHECKPOINT}\d+", saved.stem):
        raise ValueError(f"'{saved}' is not named as a checkpoint is")
    try:
        if saved.suffix == ".zip":
            return steps_of(saved)
        with suppress(NotSealed):  # of version 0.1, which only who is trusted may have written
            require_seal(saved.read_bytes(), saved)
        return int(torch.load(saved, map_location="meta", weights_only=True)["updates"])
    except Exception as error:  # torch.load documents none of those that it raises
        raise ValueError(f"'{saved}' is no whole checkpoint") from error


def save(model: Any, path: Path) -> None:
    """Save an algorithm or a trainer, so that ``path`` holds either the old file or the whole new one.

    :raises OSError: if it cannot be written
    """
    content = io.BytesIO()  # or a full disk is met by PyTorch, whose errors are others
    model.save(content)
    with replacing(path) as file:
        file.write(content.getbuffer())


def has_checkpoint(folder: Path) -> bool:
    """Whether there is anything to continue from."""
    return any(folder.glob("checkpoints/*")) or any(folder.glob("model.*"))


def is_over(folder: Path) -> bool:
    """Whether a run has its results, and they are final: it has diverged, or a task has been tested too."""
    found = RunFolder(folder).read_results()
    outcome = found.get("outcome", "stopped")
    return outcome == "diverged" or (outcome != "stopped" and found.get("test", True) is not None)
