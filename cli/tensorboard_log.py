"""The TensorBoard log of a run, which may have been interrupted."""

from __future__ import annotations

from pathlib import Path

from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from torch.utils.tensorboard.writer import SummaryWriter


class ResumableTensorBoard(TensorBoardOutputFormat):
    """Curves that go on from a step. What an earlier process logged behind that step is shown no more.

    :param folder: of the event files
    :param step: where the curves go on; 0 at their beginning
    """

    def __init__(self, folder: str, step: int) -> None:
        self.writer = SummaryWriter(folder, purge_step=step + 1 if step else None)
        self._is_closed = False


def tensorboard_logger(folder: Path, step: int) -> Logger:
    """A logger that writes to TensorBoard alone; see ``ResumableTensorBoard``."""
    return Logger(str(folder), [ResumableTensorBoard(str(folder), step)])
