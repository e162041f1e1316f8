"""What the processes share: the policy's parameters with their optimizer, and the agent steps that are left to take."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, cast

import torch
from filelock import FileLock
from torch import Tensor, nn, optim

SHAREABLE = (optim.Adam, optim.AdamW, optim.Adamax, optim.RAdam, optim.RMSprop, optim.Adadelta, optim.SGD)


class SharedOptimizer:
    """A copy of an optimizer over one vector, all parameters in a row, stepped by any number of processes at will.

    Steps take no lock (Hogwild!, Recht et al. 2011; Mnih et al. 2016): two that meet may overwrite a little of each
    other's work, which is noise next to that of the gradients. A process that is killed in the middle of one leaves
    some numbers newer than others, and each of them whole. Every process counts its own steps, since Adam's bias
    correction rests on their sum.

    It reaches another process as an argument of that process, and only so.

    :param optimizer: the optimizer to copy, with its parameters, its settings and its state
    :param workers: number of processes that step it
    :param rate: by which learning rates are multiplied
    :raises ValueError: if its statistics are not one number for each of the parameters', which begins at zero
    """

    def __init__(self, optimizer: optim.Optimizer, context: BaseContext, workers: int = 1, rate: float = 1.0) -> None:
        if not isinstance(optimizer, SHAREABLE) or len(optimizer.param_groups) > 1:
            raise ValueError(
                f"A3C's workers cannot share {type(optimizer).__name__}: choose one with a single group of parameters, "
                f"such as {', '.join(kind.__name__ for kind in SHAREABLE)}"
            )
        parameters = trained(optimizer.param_groups[0]["params"])
        self._shapes = [parameter.shape for parameter in parameters]
        self.vector = nn.Parameter(torch.zeros_like(_joined(parameters)).share_memory_())  # [P]
        self._optimizer = cast(Any, type(optimizer))([self.vector])
        self._optimizer.param_groups[0].update({**optimizer.param_groups[0], "params": [self.vector]})
        # torch creates statistics in the first step: a step from zero by a gradient of zero leaves all else as it is.
        self.vector.grad = torch.zeros_like(self.vector)
        self._optimizer.step()
        self._state = self._optimizer.state[self.vector]
        for name in self._state.keys() - {"step"}:
            self._state[name] = torch.zeros_like(self.vector, requires_grad=False).share_memory_()
        self.take(optimizer)
        self._before = int(optimizer.state.get(parameters[0], {}).get("step", 0))
        self._made = context.RawArray("q", workers)
        self._rate = context.RawValue("d", rate)

    @torch.no_grad()
    def take(self, optimizer: optim.Optimizer, rate: float | None = None) -> None:
        """Take over parameters and statistics of an optimizer like the one that this was made from.

        :param rate: by which all learning rates are multiplied from now on; None: as before
        """
        parameters = trained(optimizer.param_groups[0]["params"])
        states = [optimizer.state.get(parameter, {}) for parameter in parameters]
        self.vector.copy_(_joined(parameters))
        for name in self._state.keys() - {"step"}:
            before = [state.get(name, torch.zeros_like(p)) for p, state in zip(parameters, states, strict=True)]
            self._state[name].copy_(_joined(before))
        if rate is not None:
            self._rate.value = rate

    @property
    def steps(self) -> int:
        """Number of steps that all processes together have taken."""
        return self._before + sum(self._made)

    def step(self, gradients: Sequence[Tensor | None], learning_rate: float, rank: int = 0) -> None:
        """Update the shared parameters.

        :param gradients: one for each parameter; None where the loss does not depend on it
        :param learning_rate: for this step
        :param rank: number of this process, from 0
        """
        before = self.steps
        self._made[rank] += 1
        given = zip(gradients, self._shapes, strict=True)
        rows = [torch.zeros(shape.numel()) if grad is None else grad.flatten() for grad, shape in given]
        self.vector.grad = torch.cat(rows, out=self.vector.grad)
        self._optimizer.param_groups[0]["lr"] = learning_rate * self._rate.value
        if "step" in self._state:
            self._state["step"] = torch.tensor(float(before))  # this process's own
        self._optimizer.step()

    @torch.no_grad()
    def load_into(self, parameters: Iterable[Tensor]) -> None:
        """Copy the shared parameters into ``parameters``."""
        for parameter, shared in zip(parameters, self._pieces(self.vector), strict=True):
            parameter.copy_(shared)

    def copy_to(self, optimizer: optim.Optimizer) -> None:
        """Copy the shared parameters and statistics into an optimizer like the one that this was made from."""
        parameters = trained(optimizer.param_groups[0]["params"])
        self.load_into(parameters)
        for name, statistic in self._state.items():
            if name == "step":
                values = [torch.tensor(float(self.steps)) for _ in parameters]
            else:
                values = [piece.clone() for piece in self._pieces(statistic)]
            for parameter, value in zip(parameters, values, strict=True):
                optimizer.state[parameter][name] = value

    def _pieces(self, vector: Tensor) -> list[Tensor]:
        """Views of a vector in the shapes of the parameters."""
        pieces = vector.detach().split([shape.numel() for shape in self._shapes])
        return [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]


def trained(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Those of a network's parameters that are not frozen."""
    return [parameter for parameter in parameters if parameter.requires_grad]


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


class StepBudget:
    """Counters in shared memory. A worker claims steps before it plays them, so that a run of several workers ends
    after the same number of steps as a run of one. It can be killed at any moment: the system opens the lock that it
    held, and what it has claimed and not played is given back.

    :param taken: steps taken before
    :param total: steps at which the run ends
    :param workers: number of processes that claim steps
    """

    def __init__(self, taken: int, total: int, context: BaseContext, workers: int = 1) -> None:
        self.before, self.total = taken, total
        self._claimed, self._played = context.RawArray("q", workers), context.RawArray("q", workers)
        self._closed, self._held = context.RawValue("b", False), context.RawValue("b", False)
        self._folder = tempfile.TemporaryDirectory(prefix="relmem_", ignore_cleanup_errors=True)
        self._lock = FileLock(Path(self._folder.name, "claim"))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_folder": None, "_lock": self._lock.lock_file}  # the folder goes with the main process

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"_lock": FileLock(state["_lock"])})

    @property
    def played(self) -> int:
        """Steps that all workers together have played since the beginning of this run."""
        return sum(self._played)

    def claim(self, steps: int, rank: int = 0) -> int | None:
        """Claim the next ``steps`` steps.

        :param rank: number of this worker
        :return: the number of steps claimed before by all workers, or None if the run is over
        """
        with self._lock:
            taken = self.before + sum(self._claimed)
            if taken >= self.total or self._closed.value:
                return None
            self._claimed[rank] += steps
            return taken

    def settle(self, rank: int = 0) -> None:
        """A worker has played all that it claimed."""
        self._played[rank] = self._claimed[rank]

    def give_back(self, rank: int) -> None:
        """A worker has ended: others may claim what it had not played."""
        with self._lock:
            self._claimed[rank] = self._played[rank]

    def close(self) -> None:
        """Nothing more may be claimed."""
        self._closed.value = True

    def hold(self, held: bool) -> None:
        """Let workers wait where they would claim steps, or go on."""
        self._held.value = held

    @property
    def held(self) -> bool:
        """Whether workers are to wait."""
        return bool(self._held.value) and not self._closed.value
