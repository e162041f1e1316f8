"""Product keys written once more: every one of the n² keys is looked at."""

from torch import Tensor

from tests.naive.rows import affine, normal


def naive_memory_layer(p: dict[str, Tensor], core, x: Tensor, leaves: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of one sequence: x [F], and an empty state, which stays as it is."""
    keys, size = p["keys"].shape[2:]
    flat, y = affine(p, "query", x), 0
    for h in range(core.heads):
        halves = []
        for half in range(2):
            q = flat[(2 * h + half) * size : (2 * h + half + 1) * size]
            halves.append(normal(p, "query_norm", q))
        scores = {}
        for i in range(keys):
            for j in range(keys):
                scores[i, j] = halves[0] @ p["keys"][h, 0, i] + halves[1] @ p["keys"][h, 1, j]
        best = sorted(scores, key=lambda pair: -scores[pair].item())[: core.top]
        total = sum(scores[pair].exp() for pair in best)
        y = y + sum(scores[i, j].exp() / total * p["values"][i * keys + j] for i, j in best)
    return y, leaves
