"""Product keys written once more: every one of the n² keys is looked at."""

import torch
from torch import Tensor


def naive_memory_layer(core, x: Tensor) -> Tensor:
    """x [N, F] -> features [N, D]."""
    keys, size = core.keys.shape[2:]
    rows = []
    for x_n in x:
        flat = core.query.weight @ x_n + core.query.bias
        y = 0
        for h in range(core.heads):
            halves = []
            for half in range(2):
                q = flat[(2 * h + half) * size : (2 * h + half + 1) * size]
                q = (q - q.mean()) / torch.sqrt(((q - q.mean()) ** 2).mean() + 1e-5)
                halves.append(q * core.query_norm.weight + core.query_norm.bias)
            scores = {}
            for i in range(keys):
                for j in range(keys):
                    scores[i, j] = halves[0] @ core.keys[h, 0, i] + halves[1] @ core.keys[h, 1, j]
            best = sorted(scores, key=lambda pair: -scores[pair].item())[: core.top]
            total = sum(scores[pair].exp() for pair in best)
            y = y + sum(scores[i, j].exp() / total * core.values[i * keys + j] for i, j in best)
        rows.append(y)
    return torch.stack(rows)
