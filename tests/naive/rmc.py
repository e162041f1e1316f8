"""RMC written once more from its description: what the core is compared with, in numbers and in speed."""

import torch
import torch.nn.functional as F
from torch import Tensor


def naive_rmc(core, x: Tensor, memory: Tensor) -> Tensor:
    """One step of one sequence, one head and one row at a time: x [F], memory [S, m] -> memory [S, m]."""
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


def naive_rmc_sequence(core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """x [T, B, F], starts [T, B] -> features [T, B, S * m], memories after the last step [B, S, m]."""
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
            column.append(memory.flatten())
        outputs.append(torch.stack(column))
        ends.append(memory)
    return torch.stack(outputs, dim=1), [torch.stack(ends)]


def textbook_rmc(core, x: Tensor, memory: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """The sequence that ``core(x, state, starts)`` computes, as released implementations run it: one step after the
    other, everything inside the step, for a whole batch.

    :param core: an RMC core, of any options; only its parameters are used
    :param x: inputs [T, B, F]
    :param memory: memory before the first step [B, S, m]
    :param starts: where episodes begin [T, B]
    :return: outputs [T, B, O] and the memory after the last step [B, S, m]
    """
    parameters = dict(core.named_parameters()) | dict(core.named_buffers())
    outputs = []
    for x_t, starts_t in zip(x, starts, strict=True):
        initial = torch.eye(*memory.shape[1:], dtype=memory.dtype, device=memory.device)
        memory = torch.where(starts_t.view(-1, 1, 1), initial, memory)
        memory = textbook_rmc_step(core, parameters, x_t, memory)
        outputs.append(core.out(memory.flatten(1)))
    return torch.stack(outputs), memory


def textbook_rmc_step(core, parameters: dict[str, Tensor], x: Tensor, memory: Tensor) -> Tensor:
    """One step: x [B, F], memory [B, S, m] -> memory [B, S, m]."""

    def affine(name: str, u: Tensor) -> Tensor:
        return F.linear(u, parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    def normalised(name: str, u: Tensor) -> Tensor:
        gain = parameters[f"{name}.weight"]
        return F.layer_norm(u, gain.shape, gain, parameters[f"{name}.bias"])

    width, joint = memory.shape[2], core.preset == "l0sg"
    projected = affine("input_projection", x).unsqueeze(1)  # [B, 1, m]
    rows = torch.cat([memory, projected], dim=1)  # [B, S + 1, m]
    for _ in range(core.blocks):
        qkv = normalised("qkv_norm", affine("qkv", rows)).unflatten(2, (core.heads, -1)).transpose(1, 2)
        query, key, value = qkv.split([core.key_size, core.key_size, width // core.heads], dim=3)
        weights = torch.softmax((query * core.key_size**-0.5) @ key.transpose(2, 3), dim=3)  # [B, H, S + 1, S + 1]
        rows = normalised("attention_norm", rows + (weights @ value).transpose(1, 2).flatten(2))
        hidden = rows
        for layer in range(core.mlp_layers):
            hidden = affine("mlp_shared" if joint else f"mlp.{2 * layer}", hidden)
            if joint or layer < core.mlp_layers - 1:
                hidden = F.relu(hidden)
        rows = normalised("mlp_norm", rows + hidden)
    candidate = rows[:, :-1]
    if core.gate == "none":
        return candidate
    gates = affine("gate_memory", memory.tanh()) + affine("gate_input", projected)
    input_gate, forget_gate = gates.chunk(2, dim=2)
    input_gate = torch.sigmoid(input_gate + parameters["input_bias"])
    forget_gate = torch.sigmoid(forget_gate + parameters["forget_bias"])
    return input_gate * candidate.tanh() + forget_gate * memory
