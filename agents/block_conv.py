"""A convolution of large stride over grey images, as one of stride 1 over blocks of pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BlockConv2d(nn.Conv2d):
    """A convolution whose kernel is twice its stride s, without padding. ``prepare`` cuts grey bfloat16 images into
    blocks, over which the same convolution needs half the time. (With more channels, or in float32, it has no
    advantage.)

    Parameters are those of ``nn.Conv2d``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 2 * stride, stride)

    def prepare(self, images: Tensor) -> Tensor:
        """Blocks of images [B, C, H, W] -> [B, s * s, H / s, W / s], where they are of use; else the images."""
        s = self.stride[0]
        whole = images.shape[2] % s == 0 and images.shape[3] % s == 0
        if images.dtype == torch.bfloat16 and self.in_channels == 1 and s == 4 and whole and not images.requires_grad:
            return blocks(images, s)
        return images

    def forward(self, images: Tensor) -> Tensor:  # [B, C, H, W], or blocks of them -> [B, O, H / s - 1, W / s - 1]
        if images.shape[1] == self.in_channels:
            return super().forward(images)
        return block_conv(images, self.weight, self.bias, self.stride[0])


def blocks(images: Tensor, s: int) -> Tensor:
    """The s x s pixels of a block become channels: [B, 1, H, W] -> [B, s * s, H / s, W / s], channels last.

    :param images: without a gradient, made of whole blocks whose rows are whole words of 8 bytes
    """
    B, _, H, W = images.shape
    words = images.reshape(B, H // s, s, W).view(torch.int64)  # moved in words of 8 bytes, not pixel by pixel
    words = words.unflatten(3, (W // s, -1)).transpose(2, 3).contiguous()  # [B, H / s, W / s, s, words of s pixels]
    return words.view(images.dtype).flatten(3).permute(0, 3, 1, 2)


def block_conv(blocks: Tensor, weight: Tensor, bias: Tensor | None, s: int) -> Tensor:
    """``F.conv2d`` with stride s and a kernel of size 2s, over images cut into blocks: over these, the same kernel is
    2x2 and its stride 1.

    :param blocks: [B, s * s, H / s, W / s]
    :param weight: [O, 1, 2s, 2s]
    :return: [B, O, H / s - 1, W / s - 1]
    """
    return F.conv2d(blocks, F.pixel_unshuffle(weight, s), bias)
