"""Whether a core has the values and gradients of its naive version, at random weights, states and resets."""

import torch
from torch import Tensor

from relmem.agents import make_core


def assert_same(got, expected, sources, tolerance=1e-9):
    """The same tensors, and the same gradients."""
    weights = [torch.randn_like(tensor) for tensor in expected]
    gradients = []
    for tensors in (got, expected):
        total = sum((tensor * weight).real.sum() for tensor, weight in zip(tensors, weights, strict=True))
        options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        gradients.append(torch.autograd.grad(total, sources, **options))
    for one, other in zip((*got, *gradients[0]), (*expected, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def outputs_of(core, features: Tensor) -> Tensor:
    """What ``output_size`` adds to a naive version: one more affine map [..., O] where a core has it."""
    p = dict(core.named_parameters())
    return features @ p["out.weight"].T + p["out.bias"] if "out.weight" in p else features


def assert_naive(core, naive, x, state, starts, tolerance=1e-9, kept=list):
    """The core and its naive version have the same outputs, last states, and gradients of everything.

    :param naive: (core, x [T, B, F], state, starts [T, B]) -> (features before the output map, leaves of the state)
    :param kept: what to compare of the core's last state, as the naive version has it
    """
    x.requires_grad_()
    for leaf in state:
        leaf.requires_grad_()
    y, end = core(x, state, starts)
    features, expected_end = naive(core, x, state, starts)
    expected = [outputs_of(core, features), *expected_end]
    assert_same([y, *kept(end)], expected, [x, *state, *core.parameters()], tolerance)


def moved(name, input_size=5, output_size=None, **options):
    """A core in double precision, with every parameter away from its special start."""
    core = make_core(name, input_size, output_size, **options).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return core


def assert_core_is(naive, name, steps=6, batch=3, seed=0, tolerance=1e-9, state_of=torch.randn, **options):
    """``assert_naive`` of a new core, whose output size the seed decides too.

    :param state_of: what draws the leaves of the state, by shape
    """
    torch.manual_seed(seed)
    core = moved(name, output_size=(None, 3)[seed % 2], **options)
    x, starts = torch.randn(steps, batch, 5, dtype=torch.float64), torch.rand(steps, batch) < 0.3
    leaves = [state_of(batch, *shape, dtype=torch.float64) for shape in core.state_spec.values()]
    assert_naive(core, naive, x, type(core.initial_state(1))(*leaves), starts, tolerance)
