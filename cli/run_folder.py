"""A run folder: everything that one training run leaves behind.

``config.yaml`` (resolved), ``command.txt``, ``versions.txt``, TensorBoard events, ``checkpoints/`` and
``learning_curve.png``; of an agent ``episodes.csv`` and ``model.zip``, of a task ``results.json`` and ``model.pt``.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from zipfile import ZipFile

import torch
import yaml
from filelock import FileLock, Timeout
from torch import nn

from ..agents import Diverged
from .config import TrainConfig
from .files import replacing
from .provenance import COMMIT, commit, versions
from .task_config import TaskTrainConfig

CHECKPOINT = "step_"  # then the step, as the name of a checkpoint
CHECKPOINT_SECONDS = 300.0  # between two checkpoints
FIRST_CHECKPOINT_SECONDS = 30.0  # after the training began
CHECKPOINTS_KEPT = 3


class Model(Protocol):
    """What is saved: an algorithm or a trainer."""

    def save(self, file: Any, /) -> Any: ...


class RunFolder:
    """The folder of a run: its files, and who may write to it.

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
        except OSError as error:
            raise ValueError(f"cannot write to run folder '{self.path}': {error.strerror}") from error

    def release(self) -> None:
        """Let others continue this run."""
        self._lock.release()

    def require_free(self) -> None:
        """Runs are never overwritten.

        :raises ValueError: if the folder holds anything, or is a file
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise ValueError(f"run folder '{self.path}' is a file")
            full = self.path.exists() and any(self.path.iterdir())
        except OSError as error:
            raise ValueError(f"cannot make run folder '{self.path}': {error.strerror}") from error
        if full:
            saved = [*self.path.glob("model.*"), *self.path.glob("checkpoints/*")]
            way = f"continue the run that it holds with --resume {self.path}" if saved else "remove it"
            raise ValueError(f"run folder '{self.path}' is not empty: choose another --run_dir, or {way}")

    def create(self, config: TrainConfig | TaskTrainConfig, argv: Sequence[str]) -> None:
        """Make the folder and write down how the run came about.

        :raises ValueError: if the folder cannot be made
        """
        try:
            self.checkpoints.mkdir(parents=True)
        except FileExistsError:
            raise ValueError(f"run folder '{self.path}' has just been made by another process") from None
        except OSError as error:
            raise ValueError(f"cannot make run folder '{self.path}': {error.strerror}") from error
        self.hold()
        self.versions.write_text(versions(), encoding="utf-8")
        self._write_config_and_command(config, argv)

    def _write_config_and_command(self, config: TrainConfig | TaskTrainConfig, argv: Sequence[str]) -> None:
        """``config.yaml`` as it holds now, and one more line in ``command.txt``: the first started the run, later ones
        resumed it."""
        with replacing(self.config) as config_file:
            config_file.write(yaml.safe_dump(config.as_dict(), sort_keys=False).encode())
        with self.command.open("a", encoding="utf-8") as file:
            file.write(f"relmem train {shlex.join(argv)}\n")

    def log_resumption(self, config: TrainConfig | TaskTrainConfig, argv: Sequence[str]) -> None:
        """Write down by which command, with which limits and at which commit the run goes on."""
        self._write_config_and_command(config, argv)
        if commit() is not None:
            with self.versions.open("a", encoding="utf-8") as file:
                file.write(f"{COMMIT} {commit()} (resumed)\n")

    def newest_checkpoint(self) -> Path:
        """The model that was trained longest, saved at the end of the run or before.

        :raises ValueError: if nothing was saved yet
        """
        if not self.has_checkpoint():
            raise ValueError(f"run folder '{self.path}' holds no checkpoint to continue from")
        return max(self._saved(), key=steps_taken)

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


def make_default_path(name: str) -> Path:
    """Make ``runs/<name>_<time>``, with a number behind it where runs start within one second.

    :raises ValueError: if it cannot be made
    """
    stem = f"{name}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    path, n = Path("runs", stem), 1
    while True:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            n += 1
            path = Path("runs", f"{stem}_{n}")
        except OSError as error:
            raise ValueError(f"cannot make run folder '{path}': {error.strerror}") from error


def steps_taken(saved: Path) -> int:
    """How far a checkpoint (by its name) or a model (by what it holds) was trained. A model that cannot be read goes
    before all others, so that whoever loads it hears of it."""
    if saved.stem.startswith(CHECKPOINT):
        return int(saved.stem.removeprefix(CHECKPOINT))
    try:
        if saved.suffix == ".zip":
            with ZipFile(saved) as archive:
                return json.loads(archive.read("data"))["num_timesteps"]
        return torch.load(saved, map_location="meta", weights_only=True)["updates"]
    except Exception:  # torch.load documents none of those that it raises
        return sys.maxsize


@contextmanager
def saved_on_failure(model: Model, network: nn.Module, folder: RunFolder) -> Iterator[None]:
    """Save what was learned even if the training fails, unless it has diverged: the last checkpoint is then what a run
    goes on from.

    :param network: whose weights the model trains
    """
    try:
        yield
    except Diverged:
        raise
    except Exception:
        if all(parameter.isfinite().all() for parameter in network.parameters()):
            save_atomically(model, folder.model)
        print(f"The training failed. To go on from where it was: --resume {folder.path}", file=sys.stderr)
        raise


def save_atomically(model: Model, path: Path) -> None:
    """Save a model so that ``path`` holds either the old file or the whole new one, whatever happens meanwhile."""
    with replacing(path) as file:
        model.save(file)


class CheckpointSaver:
    """Saves a model every few minutes, the first time soon, and keeps the newest few.

    :param folder: of the run
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._due = time.monotonic() + FIRST_CHECKPOINT_SECONDS

    def __call__(self, model: Model, step: int) -> None:
        """Save the model if it is time.

        :param step: of the training, for the file's name
        """
        if time.monotonic() < self._due:
            return
        folder, ending = self.folder.checkpoints, self.folder.ending
        save_atomically(model, folder / f"{CHECKPOINT}{step:012d}{ending}")
        for old in sorted(folder.glob(f"{CHECKPOINT}*{ending}"))[:-CHECKPOINTS_KEPT]:
            old.unlink()
        self._due = time.monotonic() + CHECKPOINT_SECONDS
