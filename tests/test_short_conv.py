"""The short convolution of cores: a loop of its steps, and torch's own convolution where nothing is reset."""

import pytest
import torch

from relmem.agents.cores.short_conv import ShortConv

B, C = 3, 5


def loop_of_steps(conv, x, last, starts):
    outputs = []
    for x_t, starts_t in zip(x, starts, strict=True):
        last = torch.where(starts_t.view(-1, 1, 1), 0, last)
        y, last = conv.step(x_t, last)
        outputs.append(y)
    return torch.stack(outputs), last


@pytest.mark.parametrize("T", [1, 2, 3, 64, 65])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("size", "bias"), [(1, True), (2, False), (4, True)])
def test_a_sequence_is_a_loop_of_steps_in_values_and_gradients(T, p, size, bias):
    conv = ShortConv(C, size, bias).double()
    x = torch.randn(T, B, C, dtype=torch.float64, requires_grad=True)
    last = torch.randn(B, size - 1, C, dtype=torch.float64, requires_grad=True)
    starts = torch.rand(T, B) < p
    got, expected = conv.sequence(x, last, starts), loop_of_steps(conv, x, last, starts)
    weights = [torch.randn_like(tensor) for tensor in expected]
    sources = [x, last, *conv.parameters()]
    gradients = [
        torch.autograd.grad(sum((a * w).sum() for a, w in zip(result, weights, strict=True)), sources)
        for result in (got, expected)
    ]
    for one, other in zip((*got, *gradients[0]), (*expected, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_without_resets_it_is_the_convolution_of_torch():
    conv, x, last = ShortConv(C, 4), torch.randn(9, B, C), torch.randn(B, 3, C)
    padded = torch.cat([last, x.transpose(0, 1)], dim=1).mT  # [B, C, 3 + T]
    expected = torch.nn.functional.conv1d(padded, conv.weight.T.unsqueeze(1), conv.bias, groups=C)
    y, end = conv.sequence(x, last, torch.zeros(9, B, dtype=torch.bool))
    torch.testing.assert_close(y, expected.permute(2, 0, 1))
    torch.testing.assert_close(end, x[-3:].transpose(0, 1))


@pytest.mark.parametrize("begin", [0, 2])
@pytest.mark.parametrize("junk", [float("inf"), float("nan")])
def test_what_has_overflowed_does_not_pass_a_reset(junk, begin):
    conv, last = ShortConv(C), torch.full((B, 3, C), junk)
    x = torch.full((6, B, C), junk)
    x[begin:] = 1.0
    starts = torch.zeros(6, B, dtype=torch.bool)
    starts[begin] = True
    y, end = conv.sequence(x, last, starts)
    assert y[begin:].isfinite().all()
    assert end.isfinite().all()
    if begin:  # what came before the reset has no finite gradient
        return
    y.sum().backward()
    assert conv.weight.grad.isfinite().all()
