"""Writing files so that a power cut, a full disk or a kill leaves the old file or the whole new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` at the end: whatever happens meanwhile, ``path`` holds either
    the old content or the whole new one, and after this call the new one is on the disk.

    :raises OSError: if it cannot be written
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def require_new(path: Path) -> None:
    """Outputs are never overwritten.

    :raises ValueError: if there is something at ``path``, or no folder that it can be written to
    """
    if path.exists() or path.is_symlink():
        raise ValueError(f"'{path}' exists already: choose another name, or remove it")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"there is no folder '{path.absolute().parent}' to write '{path.name}' to")
    require_writable(path.parent)


def require_writable(folder: Path) -> None:
    """Files can be made in a folder, which need not be there yet.

    :raises ValueError: if the system forbids it, or something else than a folder is in the way
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"cannot write to folder '{folder}': '{there}' is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write to folder '{there}': the system does not allow it")


def _sync_folder(folder: Path) -> None:
    """Bring the names of a folder's files to the disk too, where the system can do that."""
    with suppress(OSError):  # Windows opens no folders; some network file systems cannot sync them
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
