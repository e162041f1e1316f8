"""Ctrl-C, a closed terminal and the like: the first asks for an orderly end, the second ends at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopRequest:
    """True once the user has asked to stop. Listens within a ``with`` block, but for SIGHUP only where that is not
    ignored, as below ``nohup``.

    While ``at_once`` is set, a stop is raised as ``KeyboardInterrupt`` where the program stands.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.asked = False
        self.again = False
        self.at_once = False
        self._held = False
        self._previous: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 plus the number of the signal, as a shell has it; 0 without one."""
        return 128 + self.signal if self.signal else 0

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """A stretch that may last long and may be left half done: the first stop ends it, the second the program."""
        self.at_once = True
        try:
            yield
        except KeyboardInterrupt:
            self.note()
        finally:
            self.at_once = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """A short stretch, such as the saving of a model, that a second stop does not break off: it ends the program
        after it. A third one does at once."""
        self._held, asked = True, self.again
        try:
            yield
        finally:
            self._held = False
        if self.again and not asked:
            raise KeyboardInterrupt

    def note(self) -> None:
        """Take in a KeyboardInterrupt: of our own making, or raised by an environment, which is a wish to stop too.

        :raises KeyboardInterrupt: if the program is to end at once
        """
        if self.again:
            raise
        self.signal = self.signal or signal.SIGINT

    def ask(self) -> None:
        """Ask for an orderly end without a signal, such as that of a run that promises nothing any more."""
        self.asked = True

    def __bool__(self) -> bool:
        return self.asked or self.signal is not None

    def __enter__(self) -> StopRequest:
        for number in SIGNALS:
            if number != getattr(signal, "SIGHUP", None) or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        held = self._held and not self.again
        self.again, self.signal = self.signal is not None, number
        if not self.again:
            with suppress(OSError):  # the terminal may be gone
                # Not `print`, which a signal handler might interrupt in the middle.
                os.write(2, b"\nStopping and saving. Ctrl-C again quits at once.\n")
        if (self.again or self.at_once) and not held:
            raise KeyboardInterrupt
