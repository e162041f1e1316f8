"""The loss of each kind of answer."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ..tasks.base import IGNORED


def class_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of the last step: logits [S, B, C], targets [B]."""
    return F.cross_entropy(logits[-1], targets)


def bits_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy per bit: logits [S, B, bits], targets [S, B, bits]."""
    return F.binary_cross_entropy_with_logits(logits, targets)


def classes_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy per step that has a target: logits [S, B, C], targets [S, B]."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "class": class_loss,
    "bits": bits_loss,
    "classes": classes_loss,
}
