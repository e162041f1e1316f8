"""How many agent steps the workers may still take, all together."""

from __future__ import annotations

from multiprocessing.context import BaseContext


class StepBudget:
    """A counter in shared memory. A worker claims steps before it plays them, so that a run of several workers ends
    after the same number of steps as a run of one.

    :param taken: steps taken before
    :param total: steps at which the run ends
    :param context: how processes are started
    """

    def __init__(self, taken: int, total: int, context: BaseContext) -> None:
        self.total = total
        self._taken = context.Value("q", taken)
        self._closed = context.RawValue("b", False)  # no lock: a worker killed while holding it would block `close`

    def claim(self, steps: int) -> int | None:
        """Claim the next ``steps`` steps.

        :return: the number of steps claimed before by all workers, or None if the run is over
        """
        with self._taken.get_lock():
            taken = self._taken.value
            if taken >= self.total or self._closed.value:
                return None
            self._taken.value = taken + steps
            return taken

    def close(self) -> None:
        """Nothing more may be claimed."""
        self._closed.value = True
