"""Modules of the user's own, named as ``module:name``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from .checks import require_choice

_read: ContextVar[Any] = ContextVar("_read", default=None)  # the file that may import nothing


@contextmanager
def importing_nothing(file: Any) -> Iterator[None]:
    """While what a file describes is made, however deep in it a module is named, none is imported: an import runs the
    module, which may lie beside a file that somebody sent.

    :param file: what messages call it
    """
    token = _read.set(file)
    try:
        yield
    finally:
        _read.reset(token)


def own_module(module: str, what: str, task: str = "") -> ModuleType:
    """Import a module: it is installed, in the current folder or on PYTHONPATH.

    :param what: of it is asked for, as messages call it
    :param task: what else it must do, for the message
    :raises ValueError: if that fails, or may not be: see ``importing_nothing``
    """
    if (file := _read.get()) is not None and module not in sys.modules:
        raise ValueError(
            f"'{file}' has the {what}: import {module} before, or load the file with trusted=True (--trusted) if you "
            "know who wrote it"
        )
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever the module's own code may raise
        raise ValueError(
            f"{what} needs the module '{module}', whose import fails ({error!r}): it must be installed, in the current "
            f"folder or on PYTHONPATH{task}"
        ) from error


def imported(path: str, kind: str) -> Any:
    """What a module holds under a name.

    :param path: ``module:name``
    :param kind: what it is, in a word, for the messages
    :raises ValueError: if the module cannot be imported or does not hold the name
    """
    module, _, name = path.partition(":")
    found = own_module(module, f"{kind} '{path}'")
    if not hasattr(found, name):
        require_choice(f"{kind} of module '{module}'", name, [known for known in vars(found) if known[0] != "_"])
    return getattr(found, name)
