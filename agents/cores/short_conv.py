"""A short causal convolution over time, which cores keep in their state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...common.options import Count, require_options


class ShortConv(nn.Module):
    """A depthwise convolution over the last few steps of an episode, before which there are zeros:

        y_t = b + Σ_j w_j ∘ x_{t-j},  j = 0 ... K - 1,

    each channel by itself, as in Mamba, Griffin and gated delta networks. No activation follows. The K - 1 inputs
    before the present one are a leaf [B, K - 1, C] of the state of the core that uses it, oldest first, at first zeros.

    :param channels: number of channels C
    :param size: number of steps K that an output sees, its own included
    :param bias: whether there is a b
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(self, channels: Count, size: Count = 4, bias: bool = True) -> None:
        require_options(ShortConv, locals())
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, channels))  # oldest first: the last row is of the present input
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(size**-0.5), size**-0.5)  # as torch.nn.Conv1d

    def step(self, x: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """One time step: x [B, C], the inputs before it [B, K - 1, C] -> (y [B, C], the inputs before the next)."""
        window = torch.cat([last, x.unsqueeze(1)], dim=1)  # [B, K, C]
        y = (window * self.weight).sum(1)
        return y if self.bias is None else y + self.bias, window[:, 1:]

    def sequence(self, x: Tensor, last: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """All steps at once: x [T, B, C], last [B, K - 1, C], starts [T, B] -> (y [T, B, C], last).

        ``starts[t, b]`` is true where an episode begins; what was before it is then as if zero, finite or not.
        """
        length, before = len(x), last.shape[1]
        inputs = torch.cat([last.transpose(0, 1), x])  # [K - 1 + T, B, C]
        # The number of the episode that an input belongs to; those before the first step carry over the 0th.
        episode = torch.cat([starts.new_zeros(before, starts.shape[1]), starts]).cumsum(0).unsqueeze(2)
        resets = bool(starts.any())
        y = x.new_zeros(()) if self.bias is None else self.bias
        for shift, weight in enumerate(self.weight):
            past = inputs[shift : shift + length]  # K - 1 - shift steps ago
            if resets:
                past = torch.where(episode[shift : shift + length] == episode[before:], past, 0)
            y = torch.addcmul(y, past, weight)
        kept = torch.where(episode[length:] == episode[-1], inputs[length:], 0)
        return y, kept.transpose(0, 1)
