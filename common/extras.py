"""Packages that come with an extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Imports for which an extra has to be installed.

    :param what: that needs it
    :raises ValueError: naming the extra, if they fail
    """
    try:
        yield
    except ImportError as error:
        raise ValueError(f"{what} needs the extra [{extra}]: pip install 'relmem[{extra}]' ({error})") from error
