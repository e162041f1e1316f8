"""Run a naive step of one sequence over time and batch."""

import torch
from torch import Tensor


def naive_sequence(step, core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """x [T, B, F], starts [T, B] -> outputs [T, B, O], leaves of the state after the last step.

    :param step: (core, x [F], leaves of the state without a batch dimension) -> (y [O], leaves)
    """
    initial = [leaf[0] for leaf in core.initial_state(1)]
    columns, ends = [], []
    for b in range(x.shape[1]):
        leaves, column = [leaf[b] for leaf in state], []
        for t in range(len(x)):
            y, leaves = step(core, x[t, b], initial if starts[t, b] else leaves)
            column.append(y)
        columns.append(torch.stack(column))
        ends.append(leaves)
    return torch.stack(columns, dim=1), [torch.stack(leaves) for leaves in zip(*ends, strict=True)]
