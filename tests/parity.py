"""Whether a core has the values and gradients of its naive version, at random weights, states and resets."""

import torch

from relmem.agents import make_core


def assert_same(got, expected, sources, tolerance=1e-9):
    """The same tensors, and the same gradients."""
    weights = [torch.randn_like(tensor) for tensor in expected]
    gradients = []
    for tensors in (got, expected):
        total = sum((tensor * weight).sum() for tensor, weight in zip(tensors, weights, strict=True))
        gradients.append(torch.autograd.grad(total, sources, allow_unused=True, materialize_grads=True))
    for one, other in zip((*got, *gradients[0]), (*expected, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def assert_core_is(naive, name, steps=6, batch=3, seed=0, tolerance=1e-9, state_of=torch.randn, **options):
    """:param naive: (core, x [T, B, F], state, starts [T, B]) -> (outputs [T, B, O], leaves of the state)
    :param state_of: what draws the leaves of the state, by shape
    """
    torch.manual_seed(seed)
    core = make_core(name, 5, **options).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, starts = torch.randn(steps, batch, 5, dtype=torch.float64, requires_grad=True), torch.rand(steps, batch) < 0.3
    leaves = [state_of(batch, *shape, dtype=torch.float64).requires_grad_() for shape in core.state_spec.values()]
    state = type(core.initial_state(1))(*leaves)
    y, end = core(x, state, starts)
    expected_y, expected_end = naive(core, x, state, starts)
    assert_same([y, *end], [expected_y, *expected_end], [x, *leaves, *core.parameters()], tolerance)
