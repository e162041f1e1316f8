"""Things of the user's own, named as ``module:name``."""

from __future__ import annotations

import importlib
from typing import Any

from .checks import require_choice


def imported(path: str, kind: str) -> Any:
    """What a module holds under a name.

    :param path: ``module:name``; the module is installed, in the current folder or on PYTHONPATH
    :param kind: what it is, in a word, for the messages
    :raises ValueError: if the module cannot be imported or does not hold the name
    """
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever the module's own code may raise
        raise ValueError(
            f"{kind} '{path}' needs the module '{module}', whose import fails ({error!r}): it must be installed, in "
            "the current folder or on PYTHONPATH"
        ) from error
    if not hasattr(found, name):
        require_choice(f"{kind} of module '{module}'", name, [known for known in vars(found) if known[0] != "_"])
    return getattr(found, name)
