"""What keeps numbers that are not finite out of the weights: such an update is skipped, and after too many in a row the
training goes back to weights that were good, and goes on at half the rate."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .finite import Diverged, has_finite_weights
from .policy import MemoryActorCriticPolicy

MOST_HALVED = 2  # times that a training goes back to earlier weights


class Weights:
    """A copy of a policy's weights and of its optimizer's statistics."""

    def __init__(self, policy: MemoryActorCriticPolicy) -> None:
        self.policy = {name: value.clone() for name, value in policy.state_dict().items()}
        self.optimizer = copy.deepcopy(policy.optimizer.state_dict())

    def load_into(self, policy: MemoryActorCriticPolicy) -> None:
        """Bring a policy back to what it was."""
        policy.load_state_dict(self.policy)
        policy.optimizer.load_state_dict(copy.deepcopy(self.optimizer))


class UpdateGuard:
    """Counts the updates that are skipped, and knows the weights to go back to: those from which the last stretch of
    updates began of which none had to be skipped.

    :param policy: what is trained
    :param max_skipped: updates in a row that may be skipped before the training goes back; None: none is skipped, and
        the first ends the training
    """

    def __init__(self, policy: MemoryActorCriticPolicy, max_skipped: int | None) -> None:
        self.policy, self.max_skipped = policy, max_skipped
        self.skipped = self.in_a_row = self.halved = 0
        self.first = ""  # of the updates in a row: what was not finite
        self._begun: Weights | None = None
        self._good: Weights | None = None
        self._skipped_before = 0

    @property
    def rate(self) -> float:
        """By which learning rates are multiplied."""
        return 0.5**self.halved

    def begin(self) -> None:
        """A stretch of updates begins with the weights of now."""
        self._begun, self._skipped_before = Weights(self.policy), self.skipped

    def end(self) -> None:
        """It has ended, and left finite weights."""
        if self.skipped == self._skipped_before:
            self._good = self._begun

    def mark(self) -> None:
        """One stretch has ended and the next begins, unless the weights may be what updates are being skipped for."""
        if self.in_a_row == 0 and has_finite_weights(self.policy):
            self.end()
            self.begin()

    def give_up(self) -> None:
        """It was broken off: the weights are those from before it again."""
        if self._begun is not None:
            self._begun.load_into(self.policy)

    def take(self) -> None:
        """An update was finite."""
        self.in_a_row = 0

    def skip(self, report: Callable[[], str]) -> bool:
        """An update was not finite, and was skipped.

        :param report: finds out what was not
        :return: whether the weights are earlier ones now, with which nothing of this stretch goes
        :raises Diverged: if none may be skipped, or going back did not help
        """
        if self.in_a_row == 0 or self.max_skipped is None:
            self.first = report()
        if self.max_skipped is None:
            raise Diverged(self.first)
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row < self.max_skipped:
            return False
        self.go_back(self.first)
        return True

    def go_back(self, reason: str) -> None:
        """Take up the last good weights, and half the rate.

        :raises Diverged: if there are none, or this has been done often enough
        """
        weights = self._good or self._begun
        if self.max_skipped is None or weights is None or self.halved == MOST_HALVED:
            raise Diverged(reason)
        weights.load_into(self.policy)
        self.halved += 1
        self.in_a_row, self._skipped_before = 0, -1  # what is left of this stretch does not show the weights to be good

    def state(self) -> dict[str, Any]:
        """The counts, for a checkpoint."""
        return {name: getattr(self, name) for name in ("skipped", "in_a_row", "halved", "first")}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up counts."""
        vars(self).update(state)


def not_finite(
    network: nn.Module, inputs: Mapping[str, Any], compute: Callable[[], object], parts: Mapping[str, Tensor]
) -> str:
    """One sentence about the first tensor that is not finite on the way of an update: from inputs through the network
    to the parts of the loss, and back through the gradients.

    :param inputs: tensors, or tuples and dictionaries of tensors, by name
    :param compute: runs the network once more
    :param parts: of the loss, by name, in the order in which they were computed
    """
    inside = _first(inputs) or _first_inside(network, compute)
    backward = {f"gradient of {name}": p.grad for name, p in reversed(list(network.named_parameters()))}
    first = inside or _first(parts) or _first(backward) or "norm of the gradient"
    losses = ", ".join(f"{name} {part.item():.4g}" for name, part in parts.items())
    return f"the loss or its gradient is not finite, first the {first} ({losses}): a smaller learning_rate may help"


def _first(tensors: Mapping[str, Any]) -> str | None:
    """The name of the first that is not finite."""
    return next((name for name, value in tensors.items() if not _are_finite(value)), None)


def _first_inside(network: nn.Module, compute: Callable[[], object]) -> str | None:
    """The weight, or else the module, from which comes what is not finite."""
    if (name := _first(dict(network.named_parameters()))) is not None:
        return f"weight {name}"
    found: list[str] = []

    def look(name: str, _: nn.Module, __: Any, output: Any) -> None:
        if not _are_finite(output):
            found.append(f"output of {name}")

    hooks = [module.register_forward_hook(partial(look, name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            compute()
    except FloatingPointError:  # of the policy, about its outputs
        found.append("output of the policy")
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else None


def _are_finite(value: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
