"""RMC written once more from its description, one sequence, one head and one row at a time."""

import torch
from torch import Tensor


def naive_rmc(core, x: Tensor, memory: Tensor) -> Tensor:
    """One step of one sequence: x [F], memory [S, m] -> memory [S, m]."""
    p = dict(core.named_parameters()) | dict(core.named_buffers())
    slots, width = memory.shape
    heads, key_size = core.heads, core.key_size
    head_size = width // heads
    joint = core.preset == "l0sg"

    def affine(name: str, u: Tensor) -> Tensor:
        return p[f"{name}.weight"] @ u + p[f"{name}.bias"]

    def normalise(name: str, rows: list[Tensor]) -> list[Tensor]:
        gain, bias = p[f"{name}.weight"], p[f"{name}.bias"]
        groups = [torch.stack(rows)] if joint else rows
        normal = [(g - g.mean()) / torch.sqrt(g.var(unbiased=False) + 1e-5) * gain + bias for g in groups]
        return list(normal[0]) if joint else normal

    u = affine("input_projection", x)
    rows = [*memory, u]
    for _ in range(core.blocks):
        qkv = normalise("qkv_norm", [affine("qkv", row) for row in rows])
        attended = [[] for _ in rows]
        for h in range(heads):
            per_head = 2 * key_size + head_size
            parts = [row[h * per_head : (h + 1) * per_head] for row in qkv]
            for i, mine in enumerate(parts):
                query = mine[:key_size] / key_size**0.5
                scores = torch.stack([(query * other[key_size : 2 * key_size]).sum() for other in parts]).exp()
                weights = scores / scores.sum()
                attended[i].append(sum(w * other[2 * key_size :] for w, other in zip(weights, parts, strict=True)))
        rows = [row + torch.cat(heads_of) for row, heads_of in zip(rows, attended, strict=True)]
        rows = normalise("attention_norm", rows)
        hidden = rows
        for layer in range(core.mlp_layers):
            hidden = [affine("mlp_shared" if joint else f"mlp.{2 * layer}", row) for row in hidden]
            if joint or layer < core.mlp_layers - 1:
                hidden = [row.clamp(min=0) for row in hidden]
        rows = normalise("mlp_norm", [row + h for row, h in zip(rows, hidden, strict=True)])
    new = []
    for old, candidate in zip(memory, rows[:slots], strict=True):
        if core.gate == "none":
            new.append(candidate)
            continue
        gates = affine("gate_memory", old.tanh()) + affine("gate_input", u)
        take, keep = gates[: len(gates) // 2] + p["input_bias"], gates[len(gates) // 2 :] + p["forget_bias"]
        new.append(candidate.tanh() / (1 + torch.exp(-take)) + old / (1 + torch.exp(-keep)))
    return torch.stack(new)


def naive_rmc_sequence(core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, Tensor]:
    """x [T, B, F], starts [T, B] -> outputs [T, B, O], memories after the last step [B, S, m]."""
    _, slots, width = state.memory.shape
    outputs, ends = [], []
    for b in range(x.shape[1]):
        memory, column = state.memory[b], []
        for t in range(len(x)):
            if starts[t, b]:
                memory = x.new_zeros(slots, width)
                for i in range(min(slots, width)):
                    memory[i, i] = 1.0
            memory = naive_rmc(core, x[t, b], memory)
            column.append(core.out(memory.flatten()))
        outputs.append(torch.stack(column))
        ends.append(memory)
    return torch.stack(outputs, dim=1), torch.stack(ends)
