"""The memory of LM2 written once more from its equations: one sequence, one head and one slot at a time."""

import torch
from torch import Tensor

from tests.naive.rows import affine, mean_of, sigmoid


def naive_lm2(p: dict[str, Tensor], core, x: Tensor, leaves: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of one sequence: x [F], bank [N, D]."""
    (bank,) = leaves
    e = affine(p, "embedding", x)
    width = len(e)
    size = width // core.heads
    found = []
    for h in range(core.heads):
        rows = slice(h * size, (h + 1) * size)
        query = p["query.weight"][rows] @ e
        logits = [query @ (p["key.weight"][rows] @ slot) / size**0.5 for slot in bank]
        found.append(mean_of([p["value.weight"][rows] @ slot for slot in bank], logits))
    r = torch.cat(found)
    input_gates, forget_gates = (sigmoid(affine(p, f"{kind}_gate", u)) for kind, u in (("input", e), ("forget", r)))
    new = []
    for i, slot in enumerate(bank):
        rows = slice(i * width, (i + 1) * width)
        new.append(input_gates[rows] * r.tanh() + forget_gates[rows] * slot)
    return e + sigmoid(affine(p, "output_gate", r)) * r, [torch.stack(new)]


def identity_bank(p: dict[str, Tensor], core, leaves: list[Tensor]) -> list[Tensor]:
    slots, width = leaves[0].shape
    return [torch.tensor([[float(i == j) for j in range(width)] for i in range(slots)]).to(leaves[0])]
