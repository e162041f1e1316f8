"""The memory of LM2 written once more from its equations: one sequence, one head and one slot at a time."""

import torch
from torch import Tensor


def naive_lm2_sequence(core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """x [T, B, F], starts [T, B] -> features [T, B, D], banks after the last step [B, N, D]."""
    p = dict(core.named_parameters())
    slots, width = state.bank.shape[1:]
    outputs, ends = [], []
    for b in range(x.shape[1]):
        bank, column = list(state.bank[b]), []
        for t in range(len(x)):
            if starts[t, b]:
                bank = [torch.tensor([float(i == j) for j in range(width)]).to(x) for i in range(slots)]
            y, bank = _step(p, core.heads, x[t, b], bank)
            column.append(y)
        outputs.append(torch.stack(column))
        ends.append(torch.stack(bank))
    return torch.stack(outputs, dim=1), [torch.stack(ends)]


def _step(p: dict[str, Tensor], heads: int, x: Tensor, bank: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """x [F], slots [D] each -> y [D], slots."""

    def gate(name: str, u: Tensor, rows: slice) -> Tensor:
        return 1 / (1 + torch.exp(-(p[f"{name}.weight"][rows] @ u + p[f"{name}.bias"][rows])))

    e = p["embedding.weight"] @ x + p["embedding.bias"]
    width = len(e)
    size = width // heads
    found = []
    for h in range(heads):
        rows = slice(h * size, (h + 1) * size)
        query = p["query.weight"][rows] @ e
        weights = [(query @ (p["key.weight"][rows] @ slot) / size**0.5).exp() for slot in bank]
        values = [p["value.weight"][rows] @ slot for slot in bank]
        found.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    r = torch.cat(found)
    new = []
    for i, slot in enumerate(bank):
        rows = slice(i * width, (i + 1) * width)
        new.append(gate("input_gate", e, rows) * r.tanh() + gate("forget_gate", r, rows) * slot)
    return e + gate("output_gate", r, slice(0, width)) * r, new
