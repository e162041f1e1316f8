"""External memories once more, from their equations: one sequence, one head and one cell at a time."""

import torch
from torch import Tensor

from tests.naive.rows import sigmoid


def softplus(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(x))


def softmax(x: Tensor) -> Tensor:
    return torch.exp(x) / torch.exp(x).sum()


def lstm(p: dict[str, Tensor], x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """x [F], hidden, cell [C] -> hidden, cell."""
    from_x = p["controller.weight_ih"] @ x + p["controller.bias_ih"]
    i, f, g, o = (from_x + p["controller.weight_hh"] @ hidden + p["controller.bias_hh"]).chunk(4)
    cell = sigmoid(f) * cell + sigmoid(i) * g.tanh()
    return sigmoid(o) * cell.tanh(), cell


def by_content(memory: Tensor, key: Tensor, strength: Tensor) -> Tensor:
    """memory [N, W], key [W] -> [N]."""
    lengths = [torch.sqrt((v * v).sum() + 1e-6) for v in (key, *memory)]
    cosines = [(key * row).sum() / (lengths[0] * length) for row, length in zip(memory, lengths[1:], strict=True)]
    return softmax(strength * torch.stack(cosines))


def cut(x: Tensor, *sizes: int) -> list[Tensor]:
    """Pieces of a vector, where a size of 0 stands for a scalar."""
    pieces, begin = [], 0
    for size in sizes:
        pieces.append(x[begin : begin + size] if size else x[begin])
        begin += size or 1
    assert begin == len(x)
    return pieces


def naive_dnc(p: dict[str, Tensor], core, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of one sequence: x [F], leaves of the state without a batch dimension."""
    hidden, cell, memory, usage, link, precedence, last_write, last_read = state
    (cells, width), heads = memory.shape, len(last_read)

    reads = [memory.T @ w for w in last_read]
    hidden, cell = lstm(p, torch.cat([x, *reads]), hidden, cell)
    interface = p["interface.weight"] @ hidden + p["interface.bias"]
    keys, strengths, write_key, write_strength, erase, write, free, allocate, gate, modes = cut(
        interface, heads * width, heads, width, 0, width, width, heads, 0, 0, 3 * heads
    )
    erase, free, allocate, gate = sigmoid(erase), sigmoid(free), sigmoid(allocate), sigmoid(gate)

    kept = torch.ones(cells, dtype=x.dtype)
    for r in range(heads):
        kept = kept * (1 - free[r] * last_read[r])
    usage = ((usage + last_write - usage * last_write) * kept).clamp(0, 1)

    used = 1e-6 + (1 - 1e-6) * usage
    order = sorted(range(cells), key=lambda n: used[n].item())
    allocation = [None] * cells
    for j, n in enumerate(order):
        allocation[n] = 1 - used[n]
        for i in order[:j]:
            allocation[n] = allocation[n] * used[i]
    content = by_content(memory, write_key, 1 + softplus(write_strength))
    w = gate * (allocate * torch.stack(allocation) + (1 - allocate) * content)
    memory = torch.stack([row * (1 - w[n] * erase) + w[n] * write for n, row in enumerate(memory)])

    new_link = []
    for i in range(cells):
        row = [(1 - w[i] - w[j]) * link[i, j] + w[i] * precedence[j] if i != j else 0 * w[i] for j in range(cells)]
        new_link.append(torch.stack(row))
    link = torch.stack(new_link)
    precedence = (1 - w.sum()) * precedence + w

    read = []
    for r in range(heads):
        mode = softmax(modes[3 * r : 3 * r + 3])
        content = by_content(memory, keys[r * width : (r + 1) * width], 1 + softplus(strengths[r]))
        read.append(mode[0] * (link.T @ last_read[r]) + mode[1] * content + mode[2] * (link @ last_read[r]))
    y = torch.cat([hidden, *(memory.T @ w_r for w_r in read)])
    return y, [hidden, cell, memory, usage, link, precedence, w, torch.stack(read)]


def naive_ntm(p: dict[str, Tensor], core, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of one sequence: x [F], leaves of the state without a batch dimension."""
    hidden, cell, memory, last_write, last_read = state
    cells, width = memory.shape

    reads = [memory.T @ w for w in last_read]
    hidden, cell = lstm(p, torch.cat([x, *reads]), hidden, cell)
    addresses = (p["addresses.weight"] @ hidden + p["addresses.bias"]).chunk(1 + len(last_read))

    def address(numbers: Tensor, memory: Tensor, last: Tensor) -> Tensor:
        key, strength, gate, shift, sharpness = cut(numbers, width, 0, 0, len(numbers) - width - 3, 0)
        gate, shift = sigmoid(gate), softmax(shift)
        mixed = gate * by_content(memory, key, softplus(strength)) + (1 - gate) * last
        far, moved = len(shift) // 2, []
        for n in range(cells):
            moved.append(sum(shift[far + by] * mixed[(n - by) % cells] for by in range(-far, far + 1)))
        powers = torch.stack(moved).clamp(min=1e-12) ** (1 + softplus(sharpness))
        return powers / powers.sum()

    w = address(addresses[0], memory, last_write[0])
    erase, add = (p["write.weight"] @ hidden + p["write.bias"]).chunk(2)
    memory = torch.stack([row * (1 - w[n] * sigmoid(erase)) + w[n] * add for n, row in enumerate(memory)])
    read = [address(numbers, memory, last) for numbers, last in zip(addresses[1:], last_read, strict=True)]
    y = torch.cat([hidden, *(memory.T @ w_r for w_r in read)])
    return y, [hidden, cell, memory, w.unsqueeze(0), torch.stack(read)]
