"""Weights & Biases beside TensorBoard: its curves, with the options of the run."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..common.output import say, warn
from .config import Config
from .folder import RunFolder

PROJECT = "relmem"  # unless WANDB_PROJECT names another


def require_tracking() -> None:
    """Refuse to track where that cannot be.

    :raises ValueError: if wandb is not installed, or nobody is logged in and it is not to work offline
    """
    wandb = _wandb()
    online = os.environ.get("WANDB_MODE", "online") == "online"
    if online and not wandb.login(prompt=False, verify=False):
        raise ValueError("--track needs an account: run `wandb login`, or set WANDB_MODE=offline to keep all here")


@contextmanager
def tracked(folder: RunFolder, config: Config) -> Iterator[None]:
    """Send all that is written to TensorBoard to Weights & Biases too, where a run that is continued goes on."""
    wandb = _wandb()
    os.environ.setdefault("WANDB_SILENT", "true")
    earlier = sorted((folder.path / "wandb").glob("*run-*-*"), key=lambda path: path.stat().st_mtime)
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.path.name,
            id=earlier[-1].name.rpartition("-")[2] if earlier else None,
            resume="allow",
            dir=folder.path,
            config=config.as_dict(),
            sync_tensorboard=True,
        )
    except wandb.Error as error:
        warn(f"goes on without Weights & Biases: {error}")
        yield
        return
    if run.url:
        say(f"Weights & Biases: {run.url}")
    try:
        yield
    finally:
        run.finish()
        wandb.tensorboard.unpatch()


def _wandb() -> Any:
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise ValueError("--track needs the extra [track]: pip install 'relmem[track]'") from error
