"""Starts worker processes, passes on what they report, and ends them whatever happens."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, cast

from ..workers import Report

GRACE_SECONDS = 5.0  # for workers to finish their segment before they are terminated
WATCH_SECONDS = 1.0  # between looks at workers that do not report


class WorkerPool:
    """Worker processes, each with a pipe to report through.

    Used as a context: leaving it ends all processes, at the latest after ``GRACE_SECONDS`` and a moment.

    :param ask_to_stop: makes the workers end after their current segment
    """

    def __init__(self, context: SpawnContext, ask_to_stop: Callable[[], None]) -> None:
        self._context = context
        self._ask_to_stop = ask_to_stop
        self._processes: list[BaseProcess] = []
        self._connections: dict[Connection, int] = {}  # to the number of the worker

    def __enter__(self) -> WorkerPool:
        return self

    def start(self, n_workers: int, target: Callable[..., None], *args: Any) -> None:
        """Start ``target(rank, *args, connection)`` in ``n_workers`` processes."""
        for rank in range(n_workers):
            receiver, sender = self._context.Pipe(duplex=False)
            # Not a daemon, which could not have processes of its own: environments may want some.
            process = self._context.Process(target=target, args=(rank, *args, sender), name=f"A3C worker {rank}")
            with _interrupts_blocked(), sender:  # closed here, so that the pipe ends with the worker that holds it
                process.start()
                self._processes.append(process)
            self._connections[receiver] = rank

    def reports(self) -> Iterator[Report]:
        """What the workers report, as it comes, until all are done.

        :raises FloatingPointError: if the loss of a worker or its environments are not finite any more
        :raises RuntimeError: if a worker fails or dies, with its traceback or how it ended
        """
        while self._connections:
            for rank, message in self._messages(WATCH_SECONDS):
                if isinstance(message, Report):
                    yield message
                elif isinstance(message, EOFError):
                    raise RuntimeError(self._death(rank))
                elif message is not None:
                    raise message
            # A process that the worker has started may hold its pipe open after its death.
            for rank in self._connections.values():
                if self._processes[rank].exitcode not in (None, 0):
                    raise RuntimeError(self._death(rank))

    def _messages(self, timeout: float) -> Iterator[tuple[int, Report | Exception | None]]:
        """A message from each worker that has one, with its number; after a time, perhaps none. Whatever is no report
        is its last, and EOFError means that it died."""
        for connection in cast(list[Connection], wait(list(self._connections), timeout)):
            rank = self._connections[connection]
            try:
                message = connection.recv()
            except (EOFError, OSError):  # OSError: in the middle of a message
                message = EOFError()
            if not isinstance(message, Report):
                del self._connections[connection]
            yield rank, message

    def __exit__(self, *_: object) -> None:
        """End all workers: those that can finish their segment do, the rest is terminated."""
        self._ask_to_stop()
        try:
            deadline = time.monotonic() + GRACE_SECONDS
            while self._connections and time.monotonic() < deadline:
                # Nobody needs these reports any more, but a worker may be waiting for room in its pipe.
                for _ in self._messages(deadline - time.monotonic()):
                    pass
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
