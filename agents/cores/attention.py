"""What cores that attend have in common."""

from __future__ import annotations

import torch
from torch import Tensor


def head_width(width: int, heads: int) -> int:
    """Width of each of so many heads.

    :raises ValueError: if they do not divide the width, naming the nearest width that they do
    """
    if width % heads:
        nearest = max(1, round(width / heads)) * heads
        raise ValueError(f"width must be a multiple of heads, {heads}, such as {nearest}; got {width}")
    return width // heads


def sinusoids(distance: int, width: int) -> Tensor:
    """Waves of wavelengths from 2π to 10,000 times that (Vaswani et al. 2017), for distances from the one given down to
    zero: float64 [distance + 1, width], sines in the first half and cosines in the second."""
    frequencies = 10_000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(distance, -1, -1, dtype=torch.float64).unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]
