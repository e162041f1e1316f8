"""Load a trained agent without knowing which algorithm trained it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .a3c import A3C
from .base import MARKS
from .ppo import MemoryPPO
from .saved import described


def load(path: str | os.PathLike[str], trusted: bool = False, **kwargs: Any) -> MemoryPPO | A3C:
    """Load an agent that ``MemoryPPO`` or ``A3C`` saved.

    :param path: the saved file, with or without its ending ``.zip``, or a run folder, whose ``model.zip`` is loaded
    :param trusted: load also what may run code as it is loaded: files of relmem 0.1, and what an algorithm was given
        that has no plain form, such as a schedule that is a function (docs/security.md)
    :param kwargs: passed on to the algorithm's own ``load``, such as ``env``
    :raises ValueError: if there is no such file, it is damaged, not one that relmem's algorithms saved, or
        holds what could run while it is not trusted
    """
    path = Path(path)
    candidates = [path / "model.zip", path, path.with_name(path.name + ".zip")]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        checkpoints = sorted(path.glob("checkpoints/*.zip"))
        hint = f": the run is not over, but has '{checkpoints[-1]}'" if checkpoints else ""
        raise ValueError(f"there is no saved agent at '{path}'{hint}")
    saved = described(file)
    algorithms: dict[str, type[MemoryPPO | A3C]] = {"MemoryPPO": MemoryPPO, "A3C": A3C}
    name = saved.get("algorithm") or next((MARKS[mark] for mark in MARKS if mark in saved), "")
    if name not in algorithms:
        raise ValueError(f"'{file}' was saved by another algorithm than MemoryPPO and A3C")
    return algorithms[name].load(file, trusted=trusted, **kwargs)
