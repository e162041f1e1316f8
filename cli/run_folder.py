"""A run folder: everything that one training run leaves behind.

``config.yaml`` (resolved), ``command.txt``, ``versions.txt``, TensorBoard events, ``checkpoints/`` and
``learning_curve.png``; of an agent ``episodes.csv`` and ``model.zip``, of a task ``results.json`` and ``model.pt``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml
from filelock import FileLock, Timeout

from .config import TrainConfig
from .provenance import COMMIT, commit, versions
from .task_config import TaskTrainConfig


class Model(Protocol):
    """What is saved: an algorithm or a trainer."""

    def save(self, file: Any, /) -> Any: ...


class RunFolder:
    """Names of the files of a run.

    :param path: the folder; it need not exist yet
    :param ending: of the files that hold a model: .zip of SB3, or .pt of PyTorch
    """

    def __init__(self, path: Path, ending: str = ".zip") -> None:
        self.path, self.ending = path, ending
        self.config = path / "config.yaml"
        self.command = path / "command.txt"
        self.versions = path / "versions.txt"
        self.episodes = path / "episodes.csv"
        self.checkpoints = path / "checkpoints"
        self.model = path / f"model{ending}"
        self.results = path / "results.json"
        self.curve = path / "learning_curve.png"
        self._lock = FileLock(path / ".lock")

    def hold(self) -> None:
        """Keep others from training this run, until ``release`` or the end of this process.

        :raises ValueError: if another one trains it
        """
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise ValueError(f"the run in '{self.path}' is being trained by another process") from None

    def release(self) -> None:
        """Let others continue this run."""
        self._lock.release()

    def require_free(self) -> None:
        """Runs are never overwritten.

        :raises ValueError: if the folder holds anything, or is a file
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"run folder '{self.path}' is a file")
        if self.path.exists() and any(self.path.iterdir()):
            raise ValueError(
                f"run folder '{self.path}' is not empty: choose another --run_dir, "
                f"or continue the run that it holds with --resume {self.path}"
            )

    def create(self, config: TrainConfig | TaskTrainConfig, argv: Sequence[str]) -> None:
        """Make the folder and write down how the run came about.

        :raises ValueError: if the folder cannot be made
        """
        try:
            self.checkpoints.mkdir(parents=True)
        except OSError as error:
            raise ValueError(f"cannot make run folder '{self.path}': {error.strerror}") from error
        self.hold()
        text = yaml.safe_dump(config.as_dict(), sort_keys=False)
        self.config.write_text(text, encoding="utf-8")
        self.versions.write_text(versions(), encoding="utf-8")
        self.log_command(argv)

    def log_command(self, argv: Sequence[str]) -> None:
        """Add a command line to ``command.txt``: the first started the run, later ones resumed it."""
        with self.command.open("a", encoding="utf-8") as file:
            file.write(f"relmem train {shlex.join(argv)}\n")

    def log_resumption(self, argv: Sequence[str]) -> None:
        """Write down by which command, and at which commit, the run goes on."""
        self.log_command(argv)
        if commit() is not None:
            with self.versions.open("a", encoding="utf-8") as file:
                file.write(f"{COMMIT} {commit()} (resumed)\n")

    def newest_checkpoint(self) -> Path:
        """The model saved last, at the end of the run or before.

        :raises ValueError: if nothing was saved yet
        """
        if not self.has_checkpoint():
            raise ValueError(f"run folder '{self.path}' holds no checkpoint to continue from")
        return max(self._saved(), key=lambda path: path.stat().st_mtime_ns)

    def has_checkpoint(self) -> bool:
        """Whether there is anything to continue from."""
        return bool(self._saved())

    def _saved(self) -> list[Path]:
        return [path for path in (self.model, *self.checkpoints.glob(f"*{self.ending}")) if path.is_file()]

    def tensorboard_command(self) -> str:
        """How to watch the run, as one would type it here."""
        program = Path(sys.executable).with_name("tensorboard")
        on_path = shutil.which("tensorboard")
        if on_path and Path(on_path).resolve() == program.resolve():
            program = Path("tensorboard")
        elif program.is_relative_to(Path.cwd()):
            program = program.relative_to(Path.cwd())
        return shlex.join([str(program), "--logdir", str(self.path)])


def default_path(name: str) -> Path:
    """``runs/<name>_<time>``, with a number behind it where two runs start within one second."""
    stem = f"{name}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    path, n = Path("runs", stem), 1
    while path.exists():
        n += 1
        path = Path("runs", f"{stem}_{n}")
    return path


def save_atomically(model: Model, path: Path) -> None:
    """Save a model so that ``path`` holds either the old file or the whole new one, whatever happens meanwhile."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            model.save(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_checkpoint(model: Model, folder: Path, step: int, ending: str, keep: int) -> None:
    """Save a model and keep the newest few.

    :param step: of the training, for the file's name
    """
    save_atomically(model, folder / f"step_{step:012d}{ending}")
    for old in sorted(folder.glob(f"step_*{ending}"))[:-keep]:
        old.unlink()
