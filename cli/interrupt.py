"""Ctrl-C, and SIGTERM likewise: the first asks for an orderly end, the second ends at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """True once the user has asked to stop. Listens within a ``with`` block.

    While ``at_once`` is set, a stop is raised as ``KeyboardInterrupt`` where the program stands.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.again = False
        self.at_once = False
        self._previous: dict[int, Any] = {}

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """A stretch that may last long and may be left half done: the first stop ends it, the second the program."""
        self.at_once = True
        try:
            yield
        except KeyboardInterrupt:
            if self.again:
                raise
        finally:
            self.at_once = False

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.again, self.signal = self.signal is not None, number
        if not self.again:
            # Not `print`, which a signal handler might interrupt in the middle.
            os.write(2, b"\nStopping and saving. Ctrl-C again quits at once.\n")
        if self.again or self.at_once:
            raise KeyboardInterrupt
