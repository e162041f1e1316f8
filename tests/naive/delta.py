"""Memories written by the delta rule, once more from their equations: one sequence, one head and one entry of the
values at a time."""

import torch
from torch import Tensor

from tests.naive.rows import sigmoid, silu, unit


def naive_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, write: Tensor, decay: Tensor, state: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """query, key [T, B, H, k], value [T, B, H, v], write, decay [T, B, H], state [B, H, k, v], starts [T, B] ->
    read-outs [T, B, H, v], memories after the last step [B, H, k, v]."""
    steps, batch, heads, _ = query.shape
    reads, ends = [], []
    for b in range(batch):
        for h in range(heads):
            columns = list(state[b, h].T)  # one memory of keys for each entry of the values
            for t in range(steps):
                if starts[t, b]:
                    columns = [torch.zeros_like(column) for column in columns]
                for j in range(len(columns)):
                    faded = decay[t, b, h] * columns[j]
                    error = value[t, b, h, j] - (faded * key[t, b, h]).sum()
                    columns[j] = faded + write[t, b, h] * error * key[t, b, h]
                reads.append(torch.stack([(column * query[t, b, h]).sum() for column in columns]))
            ends.append(torch.stack(columns, dim=1))
    reads = torch.stack(reads).view(batch, heads, steps, -1).permute(2, 0, 1, 3)
    return reads, torch.stack(ends).view_as(state)


def root_mean_square_norm(x: Tensor, gain: Tensor) -> Tensor:
    return gain * x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)


def naive_delta_net(core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """x [T, B, F], starts [T, B] -> outputs [T, B, H * v], leaves of the state after the last step."""
    p = dict(core.named_parameters())
    heads, keys, values = core.state_spec["memory"]
    rows = silu(torch.einsum("tbf,of->tbo", x, p["qkv.weight"])).view(*x.shape[:2], heads, 2 * keys + values)
    query, key, value = unit(rows[..., :keys]), unit(rows[..., keys : 2 * keys]), rows[..., 2 * keys :]
    write = sigmoid(torch.einsum("tbf,hf->tbh", x, p["write.weight"]) + p["write.bias"])
    if core.largest_write == 2:
        write = write + write
    reads, memory = naive_delta_rule(query, key, value, write, torch.ones_like(write), state.memory, starts)
    return root_mean_square_norm(reads, p["norm.weight"]).flatten(2), [memory]


def naive_gated_delta_net(core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """x [T, B, F], starts [T, B] -> outputs [T, B, H * v], leaves of the state after the last step."""
    p = dict(core.named_parameters())
    heads, keys, _ = core.state_spec["memory"]
    projected = torch.einsum("tbf,of->tbo", x, p["qkv.weight"])
    convolved, conv = [], []
    for b in range(x.shape[1]):
        window = list(state.conv[b])  # the inputs before the present one, oldest first
        for t in range(len(x)):
            if starts[t, b]:
                window = [torch.zeros_like(row) for row in window]
            window.append(projected[t, b])
            convolved.append(sum(row * weight for row, weight in zip(window, p["conv.weight"], strict=True)))
            window = window[1:]
        conv.append(torch.stack(window) if window else state.conv[b])
    rows = silu(torch.stack(convolved)).view(x.shape[1], len(x), heads, -1).transpose(0, 1)
    query, key, value = unit(rows[..., :keys]), unit(rows[..., keys : 2 * keys]), rows[..., 2 * keys :]
    write = sigmoid(torch.einsum("tbf,hf->tbh", x, p["write.weight"]) + p["write.bias"])
    if core.largest_write == 2:
        write = write + write
    step = torch.log(1 + torch.exp(torch.einsum("tbf,hf->tbh", x, p["step_size.weight"]) + p["step_size.bias"]))
    decay = torch.exp(-torch.exp(p["log_A"]) * step)
    reads, memory = naive_delta_rule(query, key, value, write, decay, state.memory, starts)
    gate = silu(torch.einsum("tbf,of->tbo", x, p["gate.weight"]))
    return gate * root_mean_square_norm(reads, p["norm.weight"]).flatten(2), [memory, torch.stack(conv)]


def naive_generalised_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    erase: Tensor,
    take: Tensor,
    log_decay: Tensor,
    state: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor]:
    """query, key, erase, take, log_decay [T, B, H, k], value [T, B, H, v], state [B, H, k, v], starts [T, B] ->
    read-outs [T, B, H, v], memories after the last step [B, H, k, v]."""
    steps, batch, heads, _ = query.shape
    reads, ends = [], []
    for b in range(batch):
        for h in range(heads):
            columns = list(state[b, h].T)  # one memory of keys for each entry of the values
            for t in range(steps):
                if starts[t, b]:
                    columns = [torch.zeros_like(column) for column in columns]
                at = (t, b, h)
                for j in range(len(columns)):
                    erased = (columns[j] * erase[at]).sum()
                    kept = torch.exp(log_decay[at]) * columns[j] - take[at] * erase[at] * erased
                    columns[j] = kept + key[at] * value[at][j]
                reads.append(torch.stack([(column * query[at]).sum() for column in columns]))
            ends.append(torch.stack(columns, dim=1))
    reads = torch.stack(reads).view(batch, heads, steps, -1).permute(2, 0, 1, 3)
    return reads, torch.stack(ends).view_as(state)


def naive_rwkv7(core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """x [T, B, F], starts [T, B] -> outputs [T, B, H * k], leaves of the state after the last step."""
    p = dict(core.named_parameters())
    heads, size, _ = core.state_spec["memory"]

    projected = []
    for t in range(len(x)):
        for b in range(x.shape[1]):
            last = state.last_input[b] if t == 0 else x[t - 1, b]
            last = torch.zeros_like(last) if starts[t, b] else last
            r, w, k, v, a, g = (x[t, b] + mix * (last - x[t, b]) for mix in p["mix"])
            decay = sigmoid(p["decay_out.weight"] @ torch.tanh(p["decay_in.weight"] @ w) + p["decay_out.bias"])
            take = sigmoid(p["take_out.weight"] @ (p["take_in.weight"] @ a) + p["take_out.bias"])
            key = p["key.weight"] @ k
            erase = unit((key * p["erase_scale"]).view(heads, size)).flatten()
            gate = p["gate_out.weight"] @ sigmoid(p["gate_in.weight"] @ g)
            written = key * (1 - p["take_scale"]) + key * take * p["take_scale"]
            vectors = (
                p["receptance.weight"] @ r,
                written,
                p["value.weight"] @ v,
                erase,
                take,
                -decay / 2.718281828459045**0.5,
            )
            projected.append(torch.stack([*vectors, gate]).view(7, heads, size))
    parts = torch.stack(projected).view(*x.shape[:2], 7, heads, size).unbind(2)
    reads, memory = naive_generalised_delta_rule(*parts[:6], state.memory, starts)
    centred = reads - reads.mean(-1, keepdim=True)
    normal = centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 64e-5)
    normal = normal * p["norm.weight"].view(heads, size) + p["norm.bias"].view(heads, size)
    agreement = (parts[0] * parts[1] * p["bonus"]).sum(-1, keepdim=True)
    return (parts[6] * (normal + agreement * parts[2])).flatten(2), [memory, x[-1]]
