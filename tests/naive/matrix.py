"""The memories of matrices once more, one sequence, one head and one step at a time, from their papers' equations.

Each takes a core, of which only parameters and sizes are used, x [T, B, F], a state and starts [T, B], and returns
features [T, B, ·] and what the memories hold after the last step, in the form that the paper has it.
"""

import torch
from torch import Tensor

from tests.naive.rows import sigmoid, silu, unit


def naive_heads(run, core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The cores whose memories are those of independent heads, each of which is ``run``."""
    heads = core.heads
    outputs, ends = [], []
    for b in range(x.shape[1]):
        by_head = []
        for h in range(heads):
            first = [leaf[b, h] for leaf in state]
            by_head.append(run(Head(core, h), x[:, b], first, starts[:, b].tolist()))
        column = torch.stack([torch.cat([reads[t] for reads, _ in by_head]) for t in range(len(x))])  # [T, H * v]
        outputs.append(column)
        ends.append([torch.stack(leaves) for leaves in zip(*(end for _, end in by_head), strict=True)])
    return torch.stack(outputs, dim=1), [torch.stack(leaves) for leaves in zip(*ends, strict=True)]


class Head:
    """The part of a core's parameters that belongs to one head."""

    def __init__(self, core, h: int) -> None:
        self.core, self.h = core, h
        self.parameters = dict(core.named_parameters())

    def rows(self, name: str, x: Tensor) -> Tensor:
        """The rows of an affine map that are those of this head."""
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        size = len(weight) // self.core.heads
        mine = slice(self.h * size, (self.h + 1) * size)
        return weight[mine] @ x + bias[mine]

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.rows("query", x), self.rows("key", x), self.rows("value", x)

    def gated(self, x: Tensor, read: Tensor) -> Tensor:
        """swish(W_G x) ∘ LN(read)"""
        gate = self.rows("gate", x)
        return silu(gate) * self.normalised(read)

    def normalised(self, read: Tensor) -> Tensor:
        """LN, where the core has one."""
        if "norm.weight" not in self.parameters:
            return read
        variance = ((read - read.mean()) ** 2).mean()
        normal = (read - read.mean()) / torch.sqrt(variance + 1e-5)
        return normal * self.parameters["norm.weight"] + self.parameters["norm.bias"]


def linear_attention(head, xs, first, starts):
    memory, normaliser = first
    reads = []
    for x, start in zip(xs, starts, strict=True):
        if start:
            memory, normaliser = torch.zeros_like(memory), torch.zeros_like(normaliser)
        query, key, value = head.query_key_value(x)
        query, key = (torch.where(u > 0, u + 1, torch.exp(u)) for u in (query, key))
        memory = memory + torch.outer(key, value)
        normaliser = normaliser + key
        reads.append(sum(q * row for q, row in zip(query, memory, strict=True)) / ((query * normaliser).sum() + 1e-6))
    return reads, (memory, normaliser)


def correlation_matrix(head, xs, first, starts):
    (memory,) = first
    reads = []
    for x, start in zip(xs, starts, strict=True):
        if start:
            memory = torch.zeros_like(memory)
        query, key, value = head.query_key_value(x)
        memory = memory + torch.outer(unit(key), value)
        reads.append(memory.T @ unit(query))
    return reads, (memory,)


def retnet(head, xs, first, starts):
    """With complex numbers and numbered steps: query and key of step n are turned by exp(i n θ)."""
    (memory,) = first
    size = len(memory)
    theta = torch.tensor([10000 ** (-2 * i / size) for i in range(size // 2)], dtype=torch.float64)
    gamma = 1 - 2 ** (-5 - head.h)

    def pairs(u: Tensor) -> Tensor:
        return torch.complex(u[: size // 2], u[size // 2 :])

    def turned(n: int) -> Tensor:
        return torch.polar(torch.ones_like(theta), n * theta)

    step, reads, memory = 0, [], pairs(memory)
    for x, start in zip(xs, starts, strict=True):
        if start:
            step, memory = 0, torch.zeros_like(memory)
        step += 1
        query, key, value = head.query_key_value(x)
        query, key = pairs(query) * turned(step), pairs(key) * turned(step)
        memory = gamma * memory + torch.outer(key, torch.complex(value, torch.zeros_like(value)))
        reads.append(head.gated(x, (query.conj() @ memory).real / size**0.5))
    memory = memory * turned(-step).unsqueeze(1)
    return reads, (torch.cat([memory.real, memory.imag]),)


def gla(head, xs, first, starts):
    (memory,) = first
    size = len(memory)
    reads = []
    for x, start in zip(xs, starts, strict=True):
        if start:
            memory = torch.zeros_like(memory)
        query, key, value = head.query_key_value(x)
        few = head.parameters["decay.0.weight"] @ x
        decay = sigmoid(head.rows("decay.1", few)) ** (1 / head.core.temperature)
        memory = torch.diag(decay) @ memory + torch.outer(key, value)
        reads.append(head.gated(x, memory.T @ query / size**0.5))
    return reads, (memory,)


def mlstm(head, xs, first, starts):
    """Without the stabiliser: memory and normaliser are C and n themselves."""
    memory, normaliser, m = first
    memory, normaliser = memory * torch.exp(m), normaliser * torch.exp(m)
    reads = []
    for x, start in zip(xs, starts, strict=True):
        if start:
            memory, normaliser = torch.zeros_like(memory), torch.zeros_like(normaliser)
        query, key, value = head.query_key_value(x)
        key = key / len(key) ** 0.5
        write, keep = torch.exp(head.rows("input_gate", x)), sigmoid(head.rows("forget_gate", x))
        memory = keep * memory + write * torch.outer(key, value)
        normaliser = keep * normaliser + write * key
        bound = torch.clamp((normaliser * query).sum().abs(), min=1.0)
        read = head.normalised(memory.T @ query / bound)
        reads.append(sigmoid(head.rows("output_gate", x)) * read)
    return reads, (memory, normaliser)


def naive_fast_weights(core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """``fast_weights`` and ``weinet``. The fast weights are not kept: they are the sum of what was written, each part
    with what is left of it, as attention to hidden states of the past (Ba et al. 2016, section 3)."""
    p = dict(core.named_parameters())
    d = core.state_spec["hidden"][0]
    outputs, ends = [], []
    for b in range(x.shape[1]):
        hidden, column = state.hidden[b], []
        parts = [state.fast[b]]  # [d, d] each
        for x_t, start in zip(x[:, b], starts[:, b].tolist(), strict=True):
            if start:
                hidden, parts = torch.zeros_like(hidden), []
            before = hidden
            driven = p["input.weight"] @ x_t + p["input.bias"] + p["recurrent.weight"] @ before
            hidden = driven.clamp(min=0)
            for _ in range(core.inner_steps):
                drive = driven + sum(part @ hidden for part in parts)
                variance = ((drive - drive.mean()) ** 2).mean()
                normal = (drive - drive.mean()) / torch.sqrt(variance + 1e-5)
                hidden = (normal * p["norm.weight"] + p["norm.bias"]).clamp(min=0)
            if "gate_input.weight" not in p:
                keep, write = x.new_full((d,), core.decay), x.new_full((d,), core.rate)
            else:
                logits = p["gate_input.weight"] @ x_t + p["gate_input.bias"] + p["gate_hidden.weight"] @ before
                keep, write = sigmoid(logits[:d]), sigmoid(logits[d:])
            parts = [torch.diag(keep) @ part for part in parts] + [torch.outer(write * hidden, hidden)]
            column.append(hidden)
        outputs.append(torch.stack(column))
        ends.append((hidden, sum(parts)))
    return torch.stack(outputs, dim=1), [torch.stack(leaves) for leaves in zip(*ends, strict=True)]


def naive_shm(core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Entry by entry of the memory."""
    p = dict(core.named_parameters())
    m = core.state_spec["memory"][0]
    outputs, ends = [], []
    for b in range(x.shape[1]):
        memory, column = [[state.memory[b, i, j] for j in range(m)] for i in range(m)], []
        for x_t, start in zip(x[:, b], starts[:, b].tolist(), strict=True):
            if start:
                memory = [[x.new_zeros(()) for _ in range(m)] for _ in range(m)]
            variance = ((x_t - x_t.mean()) ** 2).mean()
            u = (x_t - x_t.mean()) / torch.sqrt(variance + 1e-5) * p["norm.weight"] + p["norm.bias"]
            query, key = ((p[f"{part}.weight"] @ u).clamp(min=0) for part in ("query", "key"))
            query, key = query / (1e-5 + query.sum()), key / (1e-5 + key.sum())
            value, factor = p["value.weight"] @ u, p["calibration.weight"] @ u
            rate = sigmoid((p["rate.weight"] @ u)[0])
            memory = [
                [
                    memory[i][j] * (1 + torch.tanh(p["theta"][i] * factor[j])) + rate * value[i] * key[j]
                    for j in range(m)
                ]
                for i in range(m)
            ]
            column.append(torch.stack([sum(memory[i][j] * query[j] for j in range(m)) for i in range(m)]))
        outputs.append(torch.stack(column))
        ends.append(torch.stack([torch.stack(row) for row in memory]))
    return torch.stack(outputs, dim=1), [torch.stack(ends)]
