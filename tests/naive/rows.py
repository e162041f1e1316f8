"""What naive versions of cores share: sequences row by row, and the functions that all equations have."""

import torch
from torch import Tensor


def by_rows(step, core, x: Tensor, state, starts: Tensor, initial=None) -> tuple[Tensor, list[Tensor]]:
    """A naive step of one row over time and batch: x [T, B, F], starts [T, B] -> features [T, B, ·] and leaves of the
    state after the last step.

    :param step: (parameters by name, core, x [F], leaves of the state of one row) -> (features, leaves)
    :param initial: (parameters by name, core, leaves) -> the leaves with which an episode begins; None: the core's
    """
    p, of_core = dict(core.named_parameters()), [leaf[0] for leaf in core.initial_state(1)]
    columns, ends = [], []
    for b in range(x.shape[1]):
        leaves, column = [leaf[b] for leaf in state], []
        for t in range(len(x)):
            if starts[t, b]:
                leaves = initial(p, core, leaves) if initial else of_core
            features, leaves = step(p, core, x[t, b], leaves)
            column.append(features)
        columns.append(torch.stack(column))
        ends.append(leaves)
    return torch.stack(columns, dim=1), [torch.stack(leaves) for leaves in zip(*ends, strict=True)]


def affine(p: dict[str, Tensor], name: str, u: Tensor) -> Tensor:
    """W u + b, by the sums that these are."""
    products = torch.stack([(row * u).sum() for row in p[f"{name}.weight"]])
    return products + p[f"{name}.bias"] if f"{name}.bias" in p else products


def normal(p: dict[str, Tensor], name: str, u: Tensor) -> Tensor:
    """Layer normalisation."""
    return (u - u.mean()) / torch.sqrt(((u - u.mean()) ** 2).mean() + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def mean_of(values: list[Tensor], logits: list[Tensor]) -> Tensor:
    """The mean of values weighted by a softmax."""
    weights = [logit.exp() for logit in logits]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def sigmoid(u: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-u))


def silu(u: Tensor) -> Tensor:
    return u * sigmoid(u)


def unit(u: Tensor) -> Tensor:
    """Of length 1, with the guard that cores have at zero."""
    return u / torch.sqrt((u * u).sum(-1, keepdim=True) + 1e-6)
