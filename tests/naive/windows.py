"""What naive versions of cores that attend share: a loop over rows and steps, and the layers of transformers."""

import torch
from torch import Tensor


def by_rows(step, initial, core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """x [T, B, F], starts [T, B] -> outputs [T, B, O], leaves of the state after the last step.

    :param step: (parameters by name, core, x [F], leaves of the state without a batch dimension) -> (features, leaves)
    :param initial: (parameters by name, leaves) -> what they are where an episode begins
    """
    p = dict(core.named_parameters())
    columns, ends = [], []
    for b in range(x.shape[1]):
        leaves, column = [leaf[b] for leaf in state], []
        for t in range(len(x)):
            leaves = initial(p, leaves) if starts[t, b] else leaves
            features, leaves = step(p, core, x[t, b], leaves)
            column.append(affine(p, "out", features) if "out.weight" in p else features)
        columns.append(torch.stack(column))
        ends.append(leaves)
    return torch.stack(columns, dim=1), [torch.stack(leaves) for leaves in zip(*ends, strict=True)]


def zeros(p: dict[str, Tensor], leaves: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(leaf) for leaf in leaves]


def affine(p: dict[str, Tensor], name: str, u: Tensor) -> Tensor:
    return p[f"{name}.weight"] @ u + p[f"{name}.bias"]


def normal(p: dict[str, Tensor], name: str, u: Tensor) -> Tensor:
    return (u - u.mean()) / torch.sqrt(((u - u.mean()) ** 2).mean() + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def sigmoid(u: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-u))


def mean_of(values: list[Tensor], logits: list[Tensor]) -> Tensor:
    """The mean of values weighted by a softmax."""
    weights = [logit.exp() for logit in logits]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
