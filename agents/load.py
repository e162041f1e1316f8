"""Load a trained agent without knowing which algorithm trained it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .a3c import A3C
from .base import MARKS
from .impala import IMPALA
from .ppo import MemoryPPO
from .saved import described, newest, steps_of

Algorithm = MemoryPPO | A3C | IMPALA


def load(path: str | os.PathLike[str], trusted: bool = False, **kwargs: Any) -> Algorithm:
    """Load an agent that ``MemoryPPO``, ``A3C`` or ``IMPALA`` saved.

    :param path: the saved file, with or without its ending ``.zip``, or a run folder: see ``saved_file``
    :param trusted: load also what may run code as it is loaded: files of relmem 0.1, and what an algorithm was given
        that has no plain form, such as a schedule that is a function (docs/security.md)
    :param kwargs: passed on to the algorithm's own ``load``, such as ``env``
    :raises ValueError: if there is no such file, it is damaged, not one that relmem's algorithms saved, or
        holds what could run while it is not trusted
    """
    file = saved_file(path)
    saved = described(file)
    algorithms: dict[str, type[Algorithm]] = {"MemoryPPO": MemoryPPO, "A3C": A3C, "IMPALA": IMPALA}
    name = saved.get("algorithm") or next((MARKS[mark] for mark in MARKS if mark in saved), "")
    if not isinstance(name, str) or name not in algorithms:
        raise ValueError(
            f"'{file}' was saved by another algorithm than MemoryPPO, A3C and IMPALA: its own load reads it"
        )
    return algorithms[name].load(file, trusted=trusted, **kwargs)


def saved_file(path: str | os.PathLike[str]) -> Path:
    """The file to load: the given one, with or without its ending ``.zip``; of a run folder that which was
    trained longest, ``model.zip`` or a checkpoint, of those that are whole.

    :raises ValueError: if there is none
    """
    path = Path(path)
    of_run = [
        file for file in (path / "model.zip", *sorted(path.glob("checkpoints/step_*.zip"))[::-1]) if file.is_file()
    ]
    if of_run:
        return (newest(of_run, steps_of) if len(of_run) > 1 else None) or of_run[0]  # whose fault `load` names
    file = next((file for file in (path, Path(f"{path}.zip")) if file.is_file()), None)
    if (file and file.suffix == ".pt") or (file is None and [*path.glob("model.pt"), *path.glob("checkpoints/*.pt")]):
        raise ValueError(
            f"'{path}' holds a model of a supervised task, which acts in no environment: relmem train --resume tests "
            "a run, relmem.supervised.SequenceModel.load loads its model"
        )
    if file is None:
        raise ValueError(f"there is no saved agent at '{path}'")
    return file
