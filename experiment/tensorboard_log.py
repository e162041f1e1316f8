"""The TensorBoard log of a run, which may have been interrupted."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import HParam, Logger, TensorBoardOutputFormat
from torch.utils.tensorboard.writer import SummaryWriter

from ..common.values import shown
from .config import Config
from .folder import RunFolder


class ResumableTensorBoard(TensorBoardOutputFormat):
    """Curves that go on from a step. What an earlier process logged behind that step is shown no more. Where they
    cannot be written the run goes on, and every entry tries again.

    :param run: whose curves they are
    :param name: of a folder below that of the run; empty: the run's own
    :param step: where the curves go on; 0 at their beginning
    """

    def __init__(self, run: RunFolder, name: str, step: int) -> None:
        self.run, self.path, self.step = run, run.path / name, step
        _wait_for_a_later_name(self.path)
        self.writer: Any = None
        self._is_closed = False  # as SB3 asks: each entry opens what is not open
        threading.excepthook = _without_tracebacks_of_writers

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Add an entry to the curves."""
        with self.run.attempt("the TensorBoard log"):
            try:
                if self.writer is None:
                    self.writer = SummaryWriter(str(self.path), purge_step=self.step + 1 if self.step else None)
                    self.step = step
                super().write(key_values, key_excluded, step)
            except OSError:
                self.writer = None
                raise

    def close(self) -> None:
        """Write what is left."""
        writer, self.writer = self.writer, None
        with self.run.attempt("the TensorBoard log"):
            if writer is not None:
                writer.close()


def _wait_for_a_later_name(folder: Path) -> None:
    """TensorBoard reads event files in the order of their names, which begin with the second in which they were opened:
    what is opened later has to have a later one."""
    taken = max((int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")), default=0)
    while int(time.time()) == taken:
        time.sleep(0.02)


def _without_tracebacks_of_writers(args: Any) -> None:
    """What went wrong in TensorBoard's thread is raised again at the next entry."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(args)


def tensorboard_logger(run: RunFolder, step: int, name: str = "") -> Logger:
    """A logger that writes to TensorBoard alone; see ``ResumableTensorBoard``."""
    return Logger(str(run.path), [ResumableTensorBoard(run, name, step)])


def log_settings(logger: Logger, config: Config, *metrics: str) -> None:
    """Show the options of a run in TensorBoard's table of hyperparameters, beside these of its curves."""
    plain = {
        key: value if isinstance(value, int | float | str) else shown(value) for key, value in config.flat().items()
    }
    no_others = ("stdout", "log", "json", "csv")  # formats that take no such thing
    logger.record("hparams", HParam(plain, dict.fromkeys(metrics, 0.0)), exclude=no_others)
