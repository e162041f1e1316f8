"""What naive versions of cores share: sequences row by row, and the comparison with the core."""

import torch
from torch import Tensor


def by_rows(step, core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The outputs [T, B, O] and the leaves of the last state, of a ``step(p, core, x [F], leaves)`` of one row, which
    returns features and leaves, and where p holds the parameters by name. Episodes begin with zeros."""
    p = dict(core.named_parameters())
    columns, ends = [], []
    for b in range(x.shape[1]):
        leaves, column = [leaf[b] for leaf in state], []
        for t in range(len(x)):
            if starts[t, b]:
                leaves = [torch.zeros_like(leaf) for leaf in leaves]
            features, leaves = step(p, core, x[t, b], leaves)
            column.append(affine(p, "out", features) if "out.weight" in p else features)
        columns.append(torch.stack(column))
        ends.append(leaves)
    return torch.stack(columns, dim=1), [torch.stack(leaves) for leaves in zip(*ends, strict=True)]


def affine(p: dict[str, Tensor], name: str, u: Tensor) -> Tensor:
    """W u + b, by the sums that these are."""
    products = torch.stack([(row * u).sum() for row in p[f"{name}.weight"]])
    return products + p[f"{name}.bias"] if f"{name}.bias" in p else products


def sigmoid(u: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-u))


def assert_same(core, step, x: Tensor, state, starts: Tensor, tolerance: float = 1e-9) -> None:
    """The core and the naive version have the same outputs, last states, and gradients of everything."""
    x.requires_grad_()
    for leaf in state:
        leaf.requires_grad_()
    y, end = core(x, state, starts)
    expected_y, expected_end = by_rows(step, core, x, state, starts)
    got, expected = [y, *end], [expected_y, *expected_end]
    weights = [torch.randn_like(tensor) for tensor in expected]
    sources = [x, *state, *core.parameters()]
    gradients = []
    for tensors in (got, expected):
        total = sum((tensor * weight).sum() for tensor, weight in zip(tensors, weights, strict=True))
        gradients.append(torch.autograd.grad(total, sources, allow_unused=True, materialize_grads=True))
    for one, other in zip((*got, *gradients[0]), (*expected, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
