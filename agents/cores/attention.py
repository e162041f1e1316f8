"""What cores that attend have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def sinusoids(distance: int, width: int) -> Tensor:
    """Waves of wavelengths from 2π to 10,000 times that (Vaswani et al. 2017), for distances from the one given down to
    zero: float64 [distance + 1, width], sines in the first half and cosines in the second."""
    frequencies = 10_000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(distance, -1, -1, dtype=torch.float64).unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


def attend(
    query: Tensor,
    key: nn.Linear,
    value: nn.Linear,
    rows: Tensor,
    seen: Tensor | None = None,
    more: Tensor | float = 0.0,
) -> Tensor:
    """Multi-head dot-product attention, for few queries and many rows: keys and values of these are never formed, the
    queries are brought to the width of the rows instead, and what they find there is mapped to values.

    :param query: [B, T, H, d]
    :param key: from rows to keys, without a bias, width D to H * d
    :param value: from rows to values, likewise
    :param rows: what is attended to [B, S, D]
    :param seen: which rows each query may see, bool [B, T, S]; None: all
    :param more: what is added to the products of queries and keys [B, H, T, S]
    :return: what is found [B, T, H * d]
    """
    steps, heads, head_size = query.shape[1:]
    keys, values = (part.weight.unflatten(0, (heads, head_size)) for part in (key, value))  # [H, d, D]
    of_rows = torch.einsum("bthd,hdf->bhtf", query, keys).flatten(1, 2)  # [B, H * T, D]
    logits = (torch.bmm(of_rows, rows.mT).unflatten(1, (heads, steps)) + more) * head_size**-0.5  # [B, H, T, S]
    if seen is not None:
        logits = logits.masked_fill(~seen.unsqueeze(1), -torch.inf)
    found = torch.bmm(torch.softmax(logits, dim=3).flatten(1, 2), rows).unflatten(1, (heads, steps))  # [B, H, T, D]
    return torch.einsum("bhtf,hdf->bthd", found, values).flatten(2)
