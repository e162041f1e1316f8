"""What is said on the terminal. Nothing of it is vital: where nobody listens any more, the work goes on."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


def say(text: str) -> None:
    """Print, even into a pipe whose reader has gone, or a file on a full disk."""
    _print(text, sys.stdout)


def warn(text: str) -> None:
    """Print one sentence to the standard error."""
    _print(f"relmem: {' '.join(text.split())}", sys.stderr)


@contextmanager
def stage(words: str, seconds: float = 1.0) -> Iterator[None]:
    """A stretch of work of which the user hears if it takes long.

    :param words: what is being done
    :param seconds: how long it may take in silence
    """
    timer = threading.Timer(seconds, warn, (f"{words} ...",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError):  # ValueError: closed by this process
        with suppress(OSError, ValueError):  # or Python complains at its end that it cannot write what is left
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
