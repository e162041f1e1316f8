"""A convolution over blocks of pixels is the convolution over pixels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from relmem.agents.block_conv import BlockConv2d, block_conv, blocks


@pytest.mark.parametrize(("s", "size"), [(2, (8, 6)), (4, (84, 84)), (4, (8, 24))])
def test_values_and_gradients_in_double_precision(s, size):
    images = torch.randn(3, 1, *size, dtype=torch.float64)
    weight = torch.randn(5, 1, 2 * s, 2 * s, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    expected, got = F.conv2d(images, weight, bias, s), block_conv(blocks(images, s), weight, bias, s)
    torch.testing.assert_close(got, expected)
    w = torch.randn_like(expected)
    gradients = torch.autograd.grad((got * w).sum(), (weight, bias))
    for gradient, other in zip(gradients, torch.autograd.grad((expected * w).sum(), (weight, bias)), strict=True):
        torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("size", [(84, 84), (210, 160)])
@pytest.mark.parametrize("into_images", [False, True])
def test_the_layer_under_autocast_is_a_plain_one(channels, size, into_images):
    """To what one rounding to bfloat16 makes of sums of 64 products each."""
    layer, plain = BlockConv2d(channels, 32, 4), nn.Conv2d(channels, 32, 8, 4)
    plain.load_state_dict(layer.state_dict())
    images = torch.randn(4, channels, *size).bfloat16().requires_grad_(into_images)
    with torch.autocast("cpu", torch.bfloat16):
        prepared = layer.prepare(images)
        assert (prepared.shape[1] == 16) == (channels == 1 and size == (84, 84) and not into_images)
        got, expected = layer(prepared), plain(images)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected, rtol=2**-7, atol=2**-8)
    w = torch.randn_like(expected)
    for module, y in ((layer, got), (plain, expected)):
        module.zero_grad()
        (y * w).sum().backward()
    for parameter, other in zip(layer.parameters(), plain.parameters(), strict=True):
        assert (parameter.grad - other.grad).norm() < 2**-7 * other.grad.norm()
