"""Files of agents: what is in them, and how far they may be trusted.

``model.zip`` holds what files of SB3 hold, the algorithm's attributes (``data``) and the state of policy and optimizer,
but as plain data (see ``common.saved``) where SB3 has pickles.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.utils import get_system_info

from ..common.files import replacing
from ..common.plain import NotPlain
from ..common.saved import NotSealed, pack, require_seal, unpack

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
    :param trusted: whether what the file holds may be run: its pickles, the modules that its core and its features come
        from, and files that are not relmem's own
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
    if not trusted:
        _require_known_modules(name, parts[DATA].get("policy_kwargs"))
    return parts


def described(file: Path) -> dict[str, Any]:
    """The attributes of a saved algorithm as JSON, of any file that SB3 or relmem wrote: nothing of it runs.

    :raises Damaged: if it is not as it was written
    :raises ValueError: if it is no saved algorithm
    """
    content = file.read_bytes()
    with suppress(NotSealed):
        require_seal(content, file)
    try:
        with ZipFile(BytesIO(content)) as archive:
            data = json.loads(archive.read(DATA))
    except Exception as error:
        raise ValueError(f"'{file}' is not a saved agent") from error
    if not isinstance(data, dict):
        raise ValueError(f"'{file}' is not a saved agent")
    return data


def _content(path: Any) -> tuple[bytes, Any]:
    """Of a file or stream, and what to call it."""
    if not isinstance(path, str | os.PathLike):
        return path.read(), getattr(path, "name", "this file")
    path = Path(path)
    file = path if path.is_file() else path.with_name(f"{path.name}.zip")
    return file.read_bytes(), file


def _require_known_modules(name: Any, policy_kwargs: Any) -> None:
    """An import runs a module, which may lie beside a file that somebody sent."""
    for key in ("core", "features"):
        value = (policy_kwargs or {}).get(key)
        module = value.rpartition(":")[0] if isinstance(value, str) else ""
        if module and module not in sys.modules:
            raise NotPlain(
                f"'{name}' has the {key} '{value}': import {module} before, or load the file with trusted=True if you "
                "know who wrote it"
            )
