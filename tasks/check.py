"""Whether a task keeps the promises of the contract: for the tests of a task of your own."""

from __future__ import annotations

from numbers import Real
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import require_choice
from ..common.options import Count, require_option
from .base import IGNORED, Batch, Kind, Task

B = 16


def check_task(task: Task) -> None:
    """Draw some batches of a task and score answers to them.

    It is checked that inputs and targets have the shapes, the dtypes and the ranges that they should have, that a seed
    says which samples are drawn, that right answers score better than wrong ones, and that there are the sets and the
    trivial levels that a training asks for.

    :raises ValueError: naming the first of these that does not hold
    """
    require_choice("kind of answer", getattr(task, "kind", None), get_args(Kind))
    for name in ("input_size", "output_size", "answer_steps"):
        require_option(name, Count, getattr(task, name, None))
    first, again, other = (task.batch(B, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    for batch in (first, other):
        _require_inputs(task, batch)
        _require_targets(task, batch)
        _require_scores(task, batch)
    if not _equal(first, again):
        raise ValueError("batch must draw from the generator alone: the same seed gave other samples")
    if _equal(first, other):
        raise ValueError("batch must draw from the generator: another seed gave the same samples")
    for name in ("valid", "test"):
        task.require_split(name)
    for split in (None, *task.split_sizes):
        for name, level in task.trivial(split).items():
            if not isinstance(level, Real):
                raise ValueError(f"the trivial level '{name}' must be a number, got {level!r}")


def _require_inputs(task: Task, batch: Batch) -> None:
    _require("the inputs of a batch", batch.inputs, (None, B, task.input_size), torch.float32)
    if not batch.inputs.isfinite().all():
        raise ValueError("the inputs of a batch must be finite")
    if batch.first is not None:
        _require("'first' of a batch", batch.first, (B,), torch.int64)
        if batch.first.min() < 0 or batch.first.max() >= len(batch.inputs):
            raise ValueError("'first' of a batch must name steps of its inputs")


def _require_targets(task: Task, batch: Batch) -> None:
    targets, classes = batch.targets, task.output_size
    if task.kind == "bits":
        _require("the targets of a batch", targets, (None, B, classes), torch.float32)
        if not ((targets == 0) | (targets == 1)).all():
            raise ValueError("targets that are bits must be 0 or 1")
    else:
        _require("the targets of a batch", targets, (B,) if task.kind == "class" else (None, B), torch.int64)
        lowest = 0 if task.kind == "class" else IGNORED
        if not (lowest <= targets.min() and targets.max() < classes):
            raise ValueError(f"targets must be from {lowest} to {classes - 1}")
        if not (targets != IGNORED).view(-1, B).any(dim=0).all():
            raise ValueError("every sample must have a step that is scored")
    if not 1 <= batch.answer_steps <= min(task.answer_steps, len(batch.inputs)):
        raise ValueError(
            f"the answer of a batch, {batch.answer_steps} steps, must be part of its {len(batch.inputs)} steps, and no "
            f"longer than the task's answer_steps, {task.answer_steps}"
        )


def _require_scores(task: Task, batch: Batch) -> None:
    if task.kind == "bits":
        logits = batch.targets * 2 - 1  # [S, B, bits]
    else:
        logits = F.one_hot(batch.targets.view(-1, B).clamp(min=0), task.output_size).float()  # [S, B, classes]
    right, wrong = task.evaluate(logits, batch), task.evaluate(-logits, batch)
    if next(iter(right), None) != task.metric:
        raise ValueError(f"evaluate must return the task's metric, '{task.metric}', first; got {list(right)}")
    if (right[task.metric] > wrong[task.metric]) != task.higher_is_better:
        better = "higher" if task.higher_is_better else "lower"
        raise ValueError(f"right answers must have a {better} '{task.metric}' than wrong ones")


def _require(what: str, value: Any, shape: tuple[int | None, ...], dtype: torch.dtype) -> None:
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must be a tensor [{sizes}], got {type(value).__name__}")
    fits = value.dim() == len(shape) and all(
        size in (None, given) for size, given in zip(shape, value.shape, strict=True)
    )
    if not fits or value.dtype != dtype:
        raise ValueError(f"{what} must be {dtype} [{sizes}], got {value.dtype} {list(value.shape)}")


def _equal(batch: Batch, other: Batch) -> bool:
    return torch.equal(batch.inputs, other.inputs) and torch.equal(batch.targets, other.targets)
