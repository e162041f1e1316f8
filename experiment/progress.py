"""How far a run is, on the terminal."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from ..common.output import say


class Progress:
    """A progress bar with speed and time left; without a terminal, a line now and then.

    :param total: where the run ends
    :param unit: what is counted, such as steps
    :param seconds: time between two lines where there is no terminal
    :param limit: seconds after which the run ends anyway; None: none
    """

    def __init__(self, total: int, unit: str, seconds: float = 30.0, limit: float | None = None) -> None:
        self.total, self.unit, self.seconds, self.limit = total, unit, seconds, limit
        self._console = Console()
        self._bar = Bar(
            BarColumn(bar_width=12),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit + ", {task.fields[status]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def start(self, completed: int, status: str) -> None:
        """Begin to measure the speed.

        :param completed: where the run begins or goes on
        :param status: in a few words
        """
        self._began = self._last_line = time.monotonic()
        self._first, self._status = completed, status
        self._task = self._bar.add_task("", total=self.total, completed=completed, status=status)
        with suppress(OSError):  # a terminal that has gone
            self._bar.start()

    def update(self, completed: int, status: str | None = None) -> None:
        """Show where the run is, with the same status as before unless there is another."""
        now, self._status = time.monotonic(), self._status if status is None else status
        speed = max(completed - self._first, 1) / max(now - self._began, 1e-9)
        left = max(self.total - completed, 0) / speed  # a rollout may reach beyond the end
        if self.limit is not None:
            left = min(left, max(self.limit - (now - self._began), 0.0))
        shown = f"{speed:,.0f} {self.unit}/s, {self._status}, {timedelta(seconds=int(left))} left"
        if self._console.is_terminal:
            with suppress(OSError):
                self._bar.update(self._task, completed=completed, status=shown)
        elif now - self._last_line >= self.seconds:
            self._last_line = now
            say(f"{completed:,} of {self.total:,} {self.unit}, {shown}")

    def close(self) -> None:
        """Leave the terminal as it was, however the run ended."""
        with suppress(OSError):
            self._bar.stop()
