"""The contract of a supervised task: what it draws, and how an answer to it is scored.

Sequences are time first, batch second: T steps, B samples, F input features. A sample is read whole and answered
during the last S steps, so a model computes the outputs of these steps alone.
"""

from __future__ import annotations

import zlib
from statistics import fmean
from typing import Literal, NamedTuple

import torch
from torch import Tensor

IGNORED = -1
"""Class of the steps that are not scored."""

Kind = Literal["class", "classes", "bits"]


class Batch(NamedTuple):
    """Samples of one task, all of the same number of steps."""

    inputs: Tensor
    """[T, B, F] float32, the answer phase included. A large fixed set may hold bool; ``rows`` makes it float32."""
    targets: Tensor
    """``class``: int64 [B]; ``classes``: int64 [S, B], IGNORED where not scored; ``bits``: float32 0 or 1
    [S, B, bits]."""
    first: Tensor | None = None
    """The step at which each sample begins, int64 [B]: before it, shorter samples are padded with empty steps, of which
    a model is to know nothing. None: all samples begin at step 0."""

    @property
    def size(self) -> int:
        """B, the number of samples."""
        return self.inputs.shape[1]

    @property
    def answer_steps(self) -> int:
        """S of this batch: the answer is the outputs of its last S steps."""
        return 1 if self.targets.dim() == 1 else len(self.targets)

    def rows(self, index: Tensor | slice) -> Batch:
        """The samples at ``index``, with float32 inputs."""
        targets = self.targets[index] if self.targets.dim() == 1 else self.targets[:, index]
        return Batch(self.inputs[:, index].float(), targets, None if self.first is None else self.first[index])

    def to(self, device: torch.device | str) -> Batch:
        """The same samples on another device."""
        first = None if self.first is None else self.first.to(device)
        return Batch(self.inputs.to(device), self.targets.to(device), first)


class Task:
    """A supervised sequence task. A subclass sets the attributes and defines ``batch``."""

    kind: Kind
    """Form of the answer: one class at the last step, a class per step, or a vector of bits per step."""
    input_size: int
    """F, number of input features."""
    output_size: int
    """Number of classes, or of bits."""
    answer_steps: int = 1
    """The greatest S of any batch; each batch knows its own."""
    asks_while_answering: bool = False
    """Whether the inputs go on during the answer phase, rather than being empty there."""
    metric: str = "accuracy"
    """The task's own metric, the first that ``evaluate`` returns."""
    higher_is_better: bool = True
    fixed: bool = False
    """Whether training repeats ``split("train")`` epoch by epoch rather than drawing fresh batches."""
    split_sizes: dict[str, int] = {"valid": 1000, "test": 2000}  # noqa: RUF012 (replaced, never changed)
    """The fixed sets, by name, and their sizes: ``valid``, ``test``, and others for the final evaluation whose names
    begin with ``test``."""

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        """``size`` fresh samples, on the generator's device."""
        raise NotImplementedError

    def split(self, name: str, seed: int = 0) -> Batch:
        """A fixed set, on the CPU, the same whatever device trains.

        :param name: one of ``split_sizes``
        :param seed: which fixed set; independent of the batches that a generator of the same seed draws
        :raises ValueError: if the task has no such set
        """
        self.require_split(name)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {seed}".encode()))
        return self._draw_split(name, generator)

    def require_split(self, name: str) -> None:
        """Raise a ValueError if the task has no fixed set of that name."""
        if name not in self.split_sizes:
            raise ValueError(f"no split '{name}': choose from {', '.join(self.split_sizes)}")

    def _draw_split(self, name: str, generator: torch.Generator) -> Batch:
        return self.batch(self.split_sizes[name], generator)

    def trivial(self, split: str | None = None) -> dict[str, float]:
        """What strategies without the sought ability reach, by name, in units of the metric.

        :param split: on one of the fixed sets; None: on average over training
        :raises ValueError: if the levels differ between the sets and there is no such set
        """
        return {}

    def evaluate(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Score logits: outputs [S, B, output_size] of the last S steps -> scalars by name, the task's metric first.

        ``accuracy``: part of the scored steps with the right class; ``bit_errors``: wrong bits per sample;
        ``exact``: part of the samples without any error.
        """
        if self.kind == "bits":
            wrong = ((outputs > 0) != (batch.targets > 0.5)).sum(dim=(0, 2))  # [S, B, bits] -> [B]
            return {"bit_errors": wrong.double().mean(), "exact": (wrong == 0).double().mean()}
        if self.kind == "class":
            return {"accuracy": (outputs[-1].argmax(dim=1) == batch.targets).double().mean()}
        scored = batch.targets != IGNORED  # [S, B]
        wrong = (outputs.argmax(dim=2) != batch.targets) & scored
        return {"accuracy": (~wrong)[scored].double().mean(), "exact": (~wrong.any(dim=0)).double().mean()}


class VaryingLengthTask(Task):
    """A task whose batches differ in length; within one batch all samples have the same.

    A subclass sets the attributes, and defines ``sample`` (and ``trivial_at``, where levels are known). The sets
    ``valid`` and ``test`` are of the first of ``test_lengths``, the set ``test_7`` of length 7.

    :param lengths: the lengths of training, drawn uniformly for each batch
    :param test_lengths: the lengths of the fixed sets
    """

    def __init__(self, lengths: range, test_lengths: tuple[int, ...]) -> None:
        self.lengths = lengths
        self._split_lengths = {"valid": test_lengths[0], "test": test_lengths[0]}
        self._split_lengths |= {f"test_{length}": length for length in test_lengths[1:]}
        self.split_sizes = {name: Task.split_sizes[name.partition("_")[0]] for name in self._split_lengths}

    def sample(self, size: int, length: int, generator: torch.Generator) -> Batch:
        """``size`` fresh samples of one length, on the generator's device."""
        raise NotImplementedError

    def trivial_at(self, length: int) -> dict[str, float]:
        """The trivial levels at one length."""
        return {}

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        choice = torch.randint(len(self.lengths), (), generator=generator, device=generator.device)
        return self.sample(size, self.lengths[int(choice)], generator)

    def _draw_split(self, name: str, generator: torch.Generator) -> Batch:
        return self.sample(self.split_sizes[name], self._split_lengths[name], generator)

    def trivial(self, split: str | None = None) -> dict[str, float]:
        if split is not None:
            self.require_split(split)
            return self.trivial_at(self._split_lengths[split])
        levels = [self.trivial_at(length) for length in self.lengths]
        return {name: fmean(level[name] for level in levels) for name in levels[0]}
