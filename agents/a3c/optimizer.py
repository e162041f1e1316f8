"""An optimizer that several processes share: its parameters and statistics live in shared memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from typing import Any

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
    :raises ValueError: if it keeps other things than a tensor for each parameter, of the same shape and zero at first
    """

    def __init__(self, optimizer: Optimizer, context: BaseContext) -> None:
        optimizer = copy.deepcopy(optimizer)
        parameters = _parameters(optimizer)
        fresh = not optimizer.state
        if fresh:
            _create_state(optimizer)
        states = [optimizer.state[parameter] for parameter in parameters]
        tiny = optimizer.defaults.get("eps", 0.0)  # at which Adamax begins
        can_share = all(_can_share(*pair, tiny if fresh else None) for pair in zip(parameters, states, strict=True))
        if len(optimizer.param_groups) > 1 or not can_share:
            raise ValueError(
                f"A3C's workers cannot share {type(optimizer).__name__}: choose an optimizer that keeps nothing but "
                "tensors of the parameters' shapes, zero at first, such as Adam, AdamW, RMSprop or SGD, in one group"
            )
        self._class: Callable[..., Optimizer] = type(optimizer)
        self._groups = optimizer.state_dict()["param_groups"]
        self._shapes = [parameter.shape for parameter in parameters]
        self._statistics = [name for name in states[0] if name != "step"]
        # One block of memory is one handle to pass on: the parameters in the first row, then a row per statistic.
        rows = [parameters, *([state[name] for state in states] for name in self._statistics)]
        self._memory = torch.stack([torch.cat([tensor.detach().flatten() for tensor in row]) for row in rows])
        self._memory.share_memory_()  # [1 + S, P]
        self._steps = context.Value("q", int(states[0].get("step", 0)))
        self._attach()

    def _attach(self) -> None:
        """An optimizer of this process's own, over views of the shared memory."""
        sizes = [shape.numel() for shape in self._shapes]
        self.parameters, *statistics = (
            [view.view(shape) for view, shape in zip(row.split(sizes), self._shapes, strict=True)]
            for row in self._memory
        )
        self._optimizer = self._class(self.parameters)
        self._optimizer.load_state_dict({"state": {}, "param_groups": self._groups})
        for i, parameter in enumerate(self.parameters):
            self._optimizer.state[parameter] = {"step": torch.tensor(0.0)}
            for name, views in zip(self._statistics, statistics, strict=True):
                self._optimizer.state[parameter][name] = views[i]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("parameters", "_optimizer")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._attach()

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
            parameter.grad = None if gradient is None else gradient.contiguous()
            self._optimizer.state[parameter]["step"].fill_(before)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()

    @torch.no_grad()
    def load_into(self, parameters: Sequence[Tensor]) -> None:
        """Copy the shared parameters into ``parameters``."""
        for theirs, shared in zip(parameters, self.parameters, strict=True):
            theirs.copy_(shared)

    @torch.no_grad()
    def copy_to(self, optimizer: Optimizer) -> None:
        """Copy the shared parameters and statistics into an optimizer like the one that this was made from."""
        parameters = _parameters(optimizer)
        self.load_into(parameters)
        if not optimizer.state:
            _create_state(optimizer)
        for parameter, shared in zip(parameters, self.parameters, strict=True):
            state = optimizer.state[parameter]
            for name in self._statistics:
                state[name].copy_(self._optimizer.state[shared][name])
            if "step" in state:
                state["step"].fill_(self.steps)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _can_share(parameter: Tensor, state: dict[str, Any], tiny: float | None) -> bool:
    """Whether these are tensors of the parameter's shape, beside the number of steps.

    :param tiny: how large fresh statistics may be that count as zero; None: these are not fresh
    """
    statistics = [value for name, value in state.items() if name != "step"]
    alike = all(isinstance(value, Tensor) and value.shape == parameter.shape for value in statistics)
    counts = isinstance(state.get("step", torch.zeros(())), Tensor)
    return counts and alike and (tiny is None or all(bool((value.abs() <= tiny).all()) for value in statistics))


def _create_state(optimizer: Optimizer) -> None:
    """torch creates the state in the first step, which is too late to share it: take one without gradient and undo it.
    What is not zero then, was not meant to begin at zero."""
    parameters = _parameters(optimizer)
    before = [parameter.detach().clone() for parameter in parameters]
    decays = [group.get("weight_decay", 0.0) for group in optimizer.param_groups]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0  # which may be a part of the gradient
    optimizer.step()
    optimizer.zero_grad()
    for group, decay in zip(optimizer.param_groups, decays, strict=True):
        group["weight_decay"] = decay
    with torch.no_grad():
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)
            if isinstance(optimizer.state[parameter].get("step"), Tensor):
                optimizer.state[parameter]["step"].zero_()
