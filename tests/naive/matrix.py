"""The memories of matrices once more, one sequence, one head and one step at a time, from their papers' equations.

Each takes a core, of which only parameters and sizes are used, x [T, B, F], a state and starts [T, B], and returns
outputs [T, B, O] and what the memories hold after the last step, in the form that the paper has it.
"""

import torch
from torch import Tensor


def naive_matrix_sequence(core, name: str, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Outputs [T, B, O], and the leaves of the paper's memory after the last step, each [B, H, ...]."""
    run = {
        "linear_attention": linear_attention,
        "correlation_matrix": correlation_matrix,
        "retnet": retnet,
        "gla": gla,
        "mlstm": mlstm,
    }[name]
    heads = core.heads
    outputs, ends = [], []
    for b in range(x.shape[1]):
        by_head = []
        for h in range(heads):
            first = [leaf[b, h] for leaf in state]
            by_head.append(run(Head(core, h), x[:, b], first, starts[:, b].tolist()))
        column = torch.stack([torch.cat([reads[t] for reads, _ in by_head]) for t in range(len(x))])  # [T, H * v]
        outputs.append(core.out(column))
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
        variance = ((read - read.mean()) ** 2).mean()
        normal = (read - read.mean()) / torch.sqrt(variance + 1e-5)
        gate = self.rows("gate", x)
        return gate / (1 + torch.exp(-gate)) * (normal * self.parameters["norm.weight"] + self.parameters["norm.bias"])


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
        memory = memory + torch.outer(key / key.square().sum().sqrt(), value)
        reads.append(memory.T @ (query / query.square().sum().sqrt()))
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
        decay = (1 / (1 + torch.exp(-head.rows("decay.1", few)))) ** (1 / head.core.temperature)
        memory = torch.diag(decay) @ memory + torch.outer(key, value)
        reads.append(head.gated(x, memory.T @ query / size**0.5))
    return reads, (memory,)


def mlstm(head, xs, first, starts):
    """Without the stabiliser: memory and normaliser are C and n themselves."""
    memory, normaliser, peak = first
    memory, normaliser = memory * torch.exp(peak), normaliser * torch.exp(peak)
    reads = []
    for x, start in zip(xs, starts, strict=True):
        if start:
            memory, normaliser = torch.zeros_like(memory), torch.zeros_like(normaliser)
        query, key, value = head.query_key_value(x)
        key = key / len(key) ** 0.5
        write, keep = torch.exp(head.rows("input_gate", x)), 1 / (1 + torch.exp(-head.rows("forget_gate", x)))
        memory = keep * memory + write * torch.outer(key, value)
        normaliser = keep * normaliser + write * key
        bound = torch.clamp((normaliser * query).sum().abs(), min=1.0)
        reads.append(memory.T @ query / bound / (1 + torch.exp(-head.rows("output_gate", x))))
    return reads, (memory, normaliser)
