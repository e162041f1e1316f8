"""An optimizer that several processes share: its parameters and statistics live in shared memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from multiprocessing.context import BaseContext

import torch
from torch import Tensor
from torch.optim import Optimizer


class SharedOptimizer:
    """A copy of an optimizer and its parameters in shared memory, stepped by any number of processes at will.

    Steps take no lock (Hogwild!, Recht et al. 2011; Mnih et al. 2016): two that meet may overwrite a little of each
    other's work, which is noise next to that of the gradients. Only the number of steps is counted under a lock, since
    Adam's bias correction rests on it and increments of torch's own counters would be lost between processes.

    It reaches another process as an argument of that process, and only so.

    :param optimizer: the optimizer to copy, with its parameters, its settings and its state
    :param context: how processes are started
    """

    def __init__(self, optimizer: Optimizer, context: BaseContext) -> None:
        self._optimizer = copy.deepcopy(optimizer)
        self.parameters = _parameters(self._optimizer)
        if not self._optimizer.state:
            self._create_state()
        states = self._optimizer.state.values()
        self._steps = context.Value("q", int(max((state["step"] for state in states if "step" in state), default=0)))
        for tensor in (*self.parameters, *(value for state in states for value in state.values())):
            tensor.share_memory_()

    def _create_state(self) -> None:
        """torch creates the state in the first step, which is too late to share it: take one and undo it."""
        before = [parameter.detach().clone() for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            for parameter, value in zip(self.parameters, before, strict=True):
                parameter.copy_(value)
                for statistic in self._optimizer.state[parameter].values():
                    statistic.zero_()

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
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            # Afresh every time: `zero_grad` of recent torch drops gradients instead of zeroing them, so that a
            # shared parameter bound to a gradient once would keep that first one for ever.
            parameter.grad = gradient
            state = self._optimizer.state[parameter]
            if "step" in state:
                state["step"] = torch.tensor(float(before))  # this process's own, for torch to increment
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()

    @torch.no_grad()
    def load_into(self, parameters: Sequence[Tensor]) -> None:
        """Copy the shared parameters into ``parameters``."""
        for theirs, shared in zip(parameters, self.parameters, strict=True):
            theirs.copy_(shared)

    def copy_to(self, optimizer: Optimizer) -> None:
        """Copy the shared parameters and state into an optimizer like the one that this was made from."""
        self.load_into(_parameters(optimizer))
        for state in self._optimizer.state.values():
            if "step" in state:
                state["step"].fill_(self.steps)
        optimizer.load_state_dict(copy.deepcopy(self._optimizer.state_dict()))


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
