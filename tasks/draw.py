"""Random numbers of the tasks, drawn on the generator's device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bits(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Fair bits, float32 0 or 1."""
    return torch.randint(2, shape, generator=generator, device=generator.device, dtype=torch.float32)


def integers(end: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform integers from 0 to ``end`` - 1, int64."""
    return torch.randint(end, shape, generator=generator, device=generator.device)


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform numbers of [low, high), float32."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def permutations(size: int, n: int, generator: torch.Generator) -> Tensor:
    """``size`` random permutations of 0 to n - 1, int64 [size, n]."""
    return torch.rand(size, n, generator=generator, device=generator.device).argsort(dim=1)


def one_hot(index: Tensor, classes: int) -> Tensor:
    """int64 [...] -> float32 [..., classes]."""
    return functional.one_hot(index, classes).float()
