"""Starts worker processes, passes on what they report, and ends them whatever happens."""

from __future__ import annotations

import contextlib
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, cast

from ...common.output import warn
from ..messages import Report
from ..resume import Moment
from .shared import StepBudget

Message = Report | Moment | Exception | None
GRACE_SECONDS = 5.0  # for workers to finish their segment before they are terminated
WATCH_SECONDS = 1.0  # between looks at workers that do not report
HOLD_SECONDS = 30.0  # for workers to finish their segment before a checkpoint
RESTART_SECONDS = 600.0  # within which restarts are counted


class WorkerPool:
    """Worker processes, each with a pipe to report through. One that dies, or is silent for too long, is replaced.

    Used as a context: leaving it ends all processes, at the latest after ``GRACE_SECONDS`` and a moment.

    :param budget: from which workers claim steps
    :param worker_timeout: seconds of silence after which a worker is taken to hang; None: however long
    :param max_restarts: workers that may be replaced within ten minutes
    """

    def __init__(
        self, context: SpawnContext, budget: StepBudget, worker_timeout: float | None = None, max_restarts: int = 0
    ) -> None:
        self._context, self._budget = context, budget
        self._worker_timeout, self._max_restarts = worker_timeout, max_restarts
        self._processes: list[BaseProcess] = []
        self._connections: dict[Connection, int] = {}  # to the number of the worker
        self._silent: dict[int, float] = {}  # seconds for which a worker has been listened to, and said nothing
        self._heard: set[int] = set()  # workers that have reported once
        self._started = 0
        self._restarted: deque[float] = deque()  # when, within the last ten minutes
        self.restarts = 0
        self.places: dict[int, Moment] = {}  # where workers are that wait or have ended
        self.left: list[Report] = []  # what was reported while the workers ended

    def __enter__(self) -> WorkerPool:
        return self

    def start(self, n_workers: int, target: Callable[..., None], *args: Any) -> None:
        """Start ``target(rank, number, *args, connection)`` in ``n_workers`` processes, ``number`` counting all that
        are started."""
        self._target, self._args = target, args
        for rank in range(n_workers):
            self._processes.append(self._start(rank))

    def _start(self, rank: int) -> BaseProcess:
        receiver, sender = self._context.Pipe(duplex=False)
        # Not a daemon, which could not have processes of its own: environments may want some.
        process = self._context.Process(
            target=self._target, args=(rank, self._started, *self._args, sender), name=f"A3C worker {rank}"
        )
        with _interrupts_blocked(), sender:  # closed here, so that the pipe ends with the worker that holds it
            process.start()
        self._connections[receiver] = rank
        self._silent[rank] = 0.0
        self._started += 1
        return process

    def reports(self) -> Iterator[Report]:
        """What the workers report, as it comes, until all are done.

        :raises FloatingPointError: if the environments of a worker give numbers that are not finite
        :raises RuntimeError: if a worker fails, with its traceback, or too many die or hang
        """
        while self._connections:
            for rank, message in self._messages(WATCH_SECONDS):
                if isinstance(message, Report):
                    yield message
                else:
                    self._take(rank, message)
            self._replace_silent()

    def hold(self) -> list[Report]:
        """Let all workers wait where they would begin a segment: ``places`` then holds where they are, and the shared
        parameters rest. ``release`` lets them go on.

        :return: what they reported until then
        """
        reports: list[Report] = []
        self.places.clear()
        self._budget.hold(True)
        deadline = time.monotonic() + HOLD_SECONDS
        while not {*self._connections.values()} <= self.places.keys() and time.monotonic() < deadline:
            for rank, message in self._messages(deadline - time.monotonic()):
                if isinstance(message, Report):
                    reports.append(message)
                else:
                    self._take(rank, message)
            self._replace_silent()
        return reports

    def release(self) -> None:
        """Let workers go on."""
        self.places.clear()
        self._budget.hold(False)

    def _messages(self, timeout: float) -> Iterator[tuple[int, Message]]:
        """A message from each worker that has one, with its number; after a time, perhaps none. After None or an error
        no other comes from it, and EOFError means that it died."""
        timeout, began = min(max(timeout, 0.0), WATCH_SECONDS), time.monotonic()
        ready = cast(list[Connection], wait(list(self._connections), timeout))
        for rank in self._connections.values():
            self._silent[rank] += time.monotonic() - began
        for connection in ready:
            rank = self._connections[connection]
            self._silent[rank] = 0.0
            try:
                message = connection.recv()
                if isinstance(message, bytes):
                    message = Moment.from_bytes(message)
            except (EOFError, OSError, pickle.UnpicklingError):  # the latter two: it died in the middle of a message
                message = EOFError()
            if isinstance(message, Report):
                self._heard.add(rank)
            elif not isinstance(message, Moment):
                del self._connections[connection]
            yield rank, message

    def _take(self, rank: int, message: Message) -> None:
        """Take in what is no report."""
        if isinstance(message, Moment):
            self.places[rank] = message
        elif isinstance(message, EOFError):
            self._replace(rank, self._death(rank))
        elif isinstance(message, Exception):
            raise message

    def _replace_silent(self) -> None:
        """Replace workers that have died without their pipe's end, which a process of theirs may hold, or hang."""
        for connection, rank in list(self._connections.items()):
            process, silent = self._processes[rank], self._silent[rank]
            died = process.exitcode not in (None, 0) and not connection.poll()
            hangs = self._worker_timeout is not None and silent > self._worker_timeout and rank not in self.places
            if died or hangs:
                reason = self._death(rank) if died else f"A3C worker {rank} said nothing for {silent:.0f} seconds"
                del self._connections[connection]
                self._replace(rank, reason)

    def _replace(self, rank: int, reason: str) -> None:
        """Start another worker, with new episodes, in the place of one that is of no use any more.

        :raises RuntimeError: if too many had to be replaced, or this one could not even begin
        """
        process = self._processes[rank]
        code = process.exitcode
        process.kill()
        process.join()
        self._budget.give_back(rank)
        now = time.monotonic()
        while self._restarted and now - self._restarted[0] > RESTART_SECONDS:
            self._restarted.popleft()
        if rank not in self._heard and code is not None and code >= 0:  # and so would the next one
            raise RuntimeError(reason)
        if len(self._restarted) >= self._max_restarts:
            counted = f" ({len(self._restarted)} had been replaced in ten minutes)" if self._restarted else ""
            raise RuntimeError(f"{reason}{counted}")
        self._restarted.append(now)
        self.restarts += 1
        warn(f"{reason}: another one takes its place")
        self._processes[rank] = self._start(rank)

    def __exit__(self, *_: object) -> None:
        """End all workers: those that can finish their segment do, the rest is terminated."""
        self._budget.close()
        try:
            deadline = time.monotonic() + GRACE_SECONDS
            while self._connections and time.monotonic() < deadline:
                for rank, message in self._messages(deadline - time.monotonic()):
                    if isinstance(message, Report):
                        self.left.append(message)
                    elif isinstance(message, Moment):
                        self.places[rank] = message
            for process in self._processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:  # also after a second Ctrl-C
            for process in self._processes:
                process.terminate()
            for process in self._processes:
                process.join(GRACE_SECONDS / 5)
                if process.exitcode is None:
                    process.kill()
                    process.join()

    def _death(self, rank: int) -> str:
        """How a worker ended."""
        self._processes[rank].join(GRACE_SECONDS)
        code = self._processes[rank].exitcode
        if code is None:
            return f"A3C worker {rank} closed its connection without a word"
        if code < 0:
            return f"A3C worker {rank} was killed by signal {-code} ({signal.strsignal(-code)})"
        return (
            f"A3C worker {rank} ended with exit code {code}; its output above may say why. A script that trains with "
            "A3C must do so below `if __name__ == '__main__':`, because its workers import it"
        )


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """A process started here does not see Ctrl-C, not even while it imports its modules; this one sees it after."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
