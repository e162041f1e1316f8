"""TPR-RNN once more, from its equations: one sequence, one entry of a sum at a time."""

import torch
from torch import Tensor

from tests.naive.rows import unit


def naive_tpr(p: dict[str, Tensor], core, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of one sequence: x [F], the memory [e, r, e]."""
    (memory,) = state
    entities, relations = memory.shape[:2]

    def vector(kind: str, name: str) -> Tensor:
        hidden = torch.tanh(p[f"{kind}.{name}.0.weight"] @ x + p[f"{kind}.{name}.0.bias"])
        out = torch.tanh(p[f"{kind}.{name}.2.weight"] @ hidden + p[f"{kind}.{name}.2.bias"])
        return unit(out) if core.unit_vectors else out

    def related(memory: Tensor, entity: Tensor, relation: Tensor) -> Tensor:
        return sum(entity[i] * relation[j] * memory[i, j] for i in range(entities) for j in range(relations))

    e1, e2, n = (vector("entities", name) for name in ("e1", "e2", "n"))
    r1, r2, r3, l1, l2, l3 = (vector("relations", name) for name in ("r1", "r2", "r3", "l1", "l2", "l3"))
    w, m, b = related(memory, e1, r1), related(memory, e1, r2), related(memory, e2, r3)
    rows = []
    for i in range(entities):
        for j in range(relations):
            row = memory[i, j] + e1[i] * r1[j] * (e2 - w) + e1[i] * r2[j] * (w - m) + e2[i] * r3[j] * (e1 - b)
            rows.append(row)
    memory = torch.stack(rows).view_as(memory)

    found = []
    for step, relation in enumerate((l1, l2, l3)):
        read = related(memory, found[-1] if found else n, relation)
        centred = read - read.mean()
        normal = centred / torch.sqrt((centred * centred).mean() + 1e-5)
        found.append(p[f"norms.{step}.weight"] * normal + p[f"norms.{step}.bias"])
    return sum(found), [memory]
