"""Files of agents: what is in them, and how far they may be trusted.

``model.zip`` holds what files of SB3 hold, the algorithm's attributes (``data``) and the state of policy and optimizer,
but as plain data (see ``common.saved``) where SB3 has pickles.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.utils import get_system_info

from ..common.files import replacing
from ..common.imports import importing_nothing
from ..common.output import warn
from ..common.plain import NotPlain
from ..common.saved import NotSealed, opened, pack, require_seal, unpack

DATA, SYSTEM, MOMENT = "data", "system", "moment"  # parts of a file that are no state of a module


class NotAgent(ValueError):
    """A file of something else than an agent."""


def write_agent(path: Any, data: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Write the file of an agent.

    :param path: of the file, to which ``.zip`` is added where it has no ending, or a stream
    :param data: the algorithm's attributes
    :param parameters: state of policy and optimizer, by name
    """
    content = pack({DATA: data, **parameters, SYSTEM: get_system_info(print_info=False)[0]})
    if not isinstance(path, str | os.PathLike):
        path.write(content)
        return
    path = Path(path)
    path = path if path.suffix else path.with_name(f"{path.name}.zip")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)


def read_agent(path: Any, trusted: bool = False, skip: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parts of the file of an agent: ``data`` and the states of policy and optimizer.

    :param path: of the file, with or without ``.zip``, or a stream
    :param trusted: whether what the file holds may be run: its pickles, and files that are not relmem's own
    :param skip: values to put in the place of those of ``data``, which are then not read
    :raises FileNotFoundError: if there is none
    :raises Damaged: if it is not as it was written
    :raises NotPlain: if it holds anything that could run, and is not trusted
    :raises NotAgent: if it holds something else
    """
    skip = skip or {}
    content, name = _content(path)
    try:
        parts = unpack(content, name, trusted, skip)
    except NotSealed:
        if not trusted:
            raise NotPlain(
                f"'{name}' was saved by an older version of relmem or by SB3, whose files run whatever code they hold: "
                "load it with trusted=True (--trusted) if you know who wrote it"
            ) from None
        data, parameters, _ = load_from_zip_file(BytesIO(content), custom_objects=dict(skip), device="cpu")
        parts = {DATA: data, **parameters}
    if not isinstance(parts.get(DATA), dict):
        raise NotAgent(f"'{name}' is not a saved agent")
    parts[DATA] |= {key: value for key, value in skip.items() if key in parts[DATA]}
    return parts


@contextmanager
def making(path: Any, trusted: bool) -> Iterator[None]:
    """Within, what a file describes is made: its modules are imported only where it is trusted, and whatever it leads
    to, if it was made to mislead, is one sentence.

    :raises ValueError: if anything fails
    """
    file = _name(path)
    with nullcontext() if trusted else importing_nothing(file):
        try:
            yield
        except ValueError:
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"of '{file}' no agent can be made: {type(error).__name__}: {reason}") from error


def newest(files: Iterable[Path], steps: Callable[[Path], int]) -> Path | None:
    """The file of what was trained longest, the first of several; None if there is none. Files that are not whole are
    passed over, with a warning.

    :param steps: how long that of a file was; raises a ValueError if it is not whole
    """
    known: dict[Path, int] = {}
    for file in files:
        try:
            known[file] = steps(file)
        except ValueError as error:
            warn(f"{error}: passed over")
    return max(known, key=lambda file: known[file], default=None)


def steps_of(file: Path) -> int:
    """How many steps a saved algorithm was trained.

    :raises ValueError: if the file is not whole, or something else
    """
    steps = described(file).get("num_timesteps")
    if not isinstance(steps, int):
        raise ValueError(f"'{file}' is not a saved agent")
    return steps


def described(file: Path) -> dict[str, Any]:
    """The attributes of a saved algorithm as JSON, of any file that SB3 or relmem wrote: nothing of it runs.

    :raises Damaged: if it is not as it was written
    :raises ValueError: if it is no saved algorithm
    """
    content = file.read_bytes()
    with suppress(NotSealed):
        require_seal(content, file)
    try:
        with opened(content) as archive:
            data = json.loads(archive.read(DATA))
    except Exception as error:
        raise ValueError(f"'{file}' is not a saved agent") from error
    if not isinstance(data, dict):
        raise ValueError(f"'{file}' is not a saved agent")
    return data


def _content(path: Any) -> tuple[bytes, Any]:
    """Of a file or stream, and what to call it."""
    file = _name(path)
    return (file.read_bytes() if isinstance(file, Path) else path.read()), file


def _name(path: Any) -> Any:
    if not isinstance(path, str | os.PathLike):
        return getattr(path, "name", "this file")
    path = Path(path)
    return path if path.is_file() else path.with_name(f"{path.name}.zip")
