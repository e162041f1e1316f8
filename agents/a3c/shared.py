"""What the processes share: the policy's parameters with their optimizer, and the agent steps that are left to take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from multiprocessing.context import BaseContext
from typing import Any, cast

import torch
from torch import Tensor, nn, optim

SHAREABLE = (optim.Adam, optim.AdamW, optim.Adamax, optim.RAdam, optim.RMSprop, optim.Adadelta, optim.SGD)


class SharedOptimizer:
    """A copy of an optimizer over one vector, all parameters in a row, stepped by any number of processes at will.

    Steps take no lock (Hogwild!, Recht et al. 2011; Mnih et al. 2016): two that meet may overwrite a little of each
    other's work, which is noise next to that of the gradients. Only the number of steps is counted under a lock, since
    Adam's bias correction rests on it.

    It reaches another process as an argument of that process, and only so.

    :param optimizer: the optimizer to copy, with its parameters, its settings and its state
    :raises ValueError: if its statistics are not one number for each of the parameters', which begins at zero
    """

    def __init__(self, optimizer: optim.Optimizer, context: BaseContext) -> None:
        if not isinstance(optimizer, SHAREABLE) or len(optimizer.param_groups) > 1:
            raise ValueError(
                f"A3C's workers cannot share {type(optimizer).__name__}: choose one with a single group of parameters, "
                f"such as {', '.join(kind.__name__ for kind in SHAREABLE)}"
            )
        parameters = trained(optimizer.param_groups[0]["params"])
        states = [optimizer.state.get(parameter, {}) for parameter in parameters]
        self._shapes = [parameter.shape for parameter in parameters]
        self.vector = nn.Parameter(torch.zeros_like(_joined(parameters)).share_memory_())  # [P]
        self._optimizer = cast(Any, type(optimizer))([self.vector])
        self._optimizer.param_groups[0].update({**optimizer.param_groups[0], "params": [self.vector]})
        # torch creates statistics in the first step: a step from zero by a gradient of zero leaves all else as it is.
        self.vector.grad = torch.zeros_like(self.vector)
        self._optimizer.step()
        self._state = self._optimizer.state[self.vector]
        with torch.no_grad():
            self.vector.copy_(_joined(parameters))
            for name in self._state.keys() - {"step"}:
                before = [state.get(name, torch.zeros_like(p)) for p, state in zip(parameters, states, strict=True)]
                self._state[name] = _joined(before).share_memory_()
        self._steps = context.Value("q", int(states[0].get("step", 0)))

    @property
    def steps(self) -> int:
        """Number of steps that all processes together have taken."""
        return self._steps.get_obj().value

    def step(self, gradients: Sequence[Tensor | None], learning_rate: float) -> None:
        """Update the shared parameters.

        :param gradients: one for each parameter; None where the loss does not depend on it
        :param learning_rate: for this step
        """
        with self._steps.get_lock():
            before = self._steps.value
            self._steps.value = before + 1
        given = zip(gradients, self._shapes, strict=True)
        rows = [torch.zeros(shape.numel()) if grad is None else grad.flatten() for grad, shape in given]
        self.vector.grad = torch.cat(rows, out=self.vector.grad)
        self._optimizer.param_groups[0]["lr"] = learning_rate
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
    """A counter in shared memory. A worker claims steps before it plays them, so that a run of several workers ends
    after the same number of steps as a run of one.

    :param taken: steps taken before
    :param total: steps at which the run ends
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
