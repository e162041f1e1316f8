"""Load a trained agent without knowing which algorithm trained it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from .a3c import A3C
from .base import MARKS
from .ppo import MemoryPPO


def load(path: str | os.PathLike[str], **kwargs: Any) -> MemoryPPO | A3C:
    """Load an agent that ``MemoryPPO`` or ``A3C`` saved.

    :param path: the saved file, with or without its ending ``.zip``, or a run folder: see ``saved_file``
    :param kwargs: passed on to the algorithm's own ``load``, such as ``env``
    :raises ValueError: if there is no such file, or it is not one that relmem's algorithms saved
    """
    file = saved_file(path)
    try:
        with ZipFile(file) as archive:
            saved = json.loads(archive.read("data"))
    except (BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"'{file}' is not a saved agent") from error
    algorithms: dict[str, type[MemoryPPO | A3C]] = {"MemoryPPO": MemoryPPO, "A3C": A3C}
    name = saved.get("algorithm") or next((MARKS[mark] for mark in MARKS if mark in saved), "")
    if name not in algorithms:
        raise ValueError(f"'{file}' was saved by another algorithm than MemoryPPO and A3C")
    return algorithms[name].load(file, **kwargs)


def saved_file(path: str | os.PathLike[str]) -> Path:
    """The file to load: the given one, with or without its ending ``.zip``; of a run folder ``model.zip``, and as long
    as the run is not over its newest checkpoint.

    :raises ValueError: if there is none
    """
    path = Path(path)
    checkpoints = sorted(path.glob("checkpoints/step_*.zip"))[::-1]  # whose names hold the step in 12 digits
    candidates = [path / "model.zip", *checkpoints, path, path.with_name(path.name + ".zip")]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if (file and file.suffix == ".pt") or (file is None and [*path.glob("model.pt"), *path.glob("checkpoints/*.pt")]):
        raise ValueError(
            f"'{path}' holds a model of a supervised task, which acts in no environment: relmem train --resume tests "
            "a run, relmem.supervised.SequenceModel.load loads its model"
        )
    if file is None:
        raise ValueError(f"there is no saved agent at '{path}'")
    return file
