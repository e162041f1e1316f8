"""How far a run is, on the terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A progress bar with speed and time left; without a terminal, a line now and then.

    :param total: where the run ends
    :param unit: what is counted, such as steps
    :param seconds: time between two lines where there is no terminal
    """

    def __init__(self, total: int, unit: str, seconds: float = 30.0) -> None:
        self.total, self.unit, self.seconds = total, unit, seconds
        self._console = Console()
        self._bar = Bar(
            BarColumn(bar_width=12),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit + ", {task.fields[status]},"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def start(self, completed: int, status: str) -> None:
        """Begin to measure the speed.

        :param completed: where the run begins or goes on
        :param status: in a few words
        """
        self._began, self._first = time.monotonic(), completed
        self._last_line = self._began
        self._task = self._bar.add_task("", total=self.total, completed=completed, status=self._status(0.0, status))
        self._bar.start()

    def update(self, completed: int, status: str) -> None:
        """Show where the run is."""
        now = time.monotonic()
        speed = (completed - self._first) / max(now - self._began, 1e-9)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=completed, status=self._status(speed, status))
        elif now - self._last_line >= self.seconds:
            self._last_line = now
            left = time.strftime("%H:%M:%S", time.gmtime((self.total - completed) / max(speed, 1e-9)))
            print(
                f"{completed:,} of {self.total:,} {self.unit}, {self._status(speed, status)}, {left} left", flush=True
            )

    def close(self) -> None:
        """Leave the terminal as it was, however the run ended."""
        self._bar.stop()

    def _status(self, speed: float, status: str) -> str:
        return f"{speed:,.0f} {self.unit}/s, {status}"
