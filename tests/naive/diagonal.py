"""Diagonal scans once more, number by number from their equations: one step of one row each."""

import torch

from tests.naive.rows import affine, sigmoid, silu


def lru(p, core, x, leaves):
    """Orvieto et al. 2023, in real numbers: |λ| (cos + i sin)."""
    real, imaginary = leaves
    new_real, new_imaginary = [], []
    for j in range(len(real)):
        radius, angle = torch.exp(-torch.exp(p["nu"][j])), torch.exp(p["theta"][j])
        a, b, gamma = radius * torch.cos(angle), radius * torch.sin(angle), torch.exp(p["log_gamma"][j])
        new_real.append(a * real[j] - b * imaginary[j] + gamma * (p["B"][2 * j] * x).sum())
        new_imaginary.append(a * imaginary[j] + b * real[j] + gamma * (p["B"][2 * j + 1] * x).sum())
    hidden = [part for pair in zip(new_real, new_imaginary, strict=True) for part in pair]
    y = [sum(C[j] * hidden[j] for j in range(len(hidden))) + (D * x).sum() for C, D in zip(p["C"], p["D"], strict=True)]
    return torch.stack(y), [torch.stack(new_real), torch.stack(new_imaginary)]


def convolve(p, u, last):
    """The output of the short convolution, and the inputs before the next step."""
    window = [*last, u]
    weight = p["conv.weight"]
    y = [p["conv.bias"][c] + sum(weight[k, c] * window[k][c] for k in range(len(window))) for c in range(len(u))]
    return torch.stack(y), torch.stack(window[1:]) if len(last) else last


def rg_lru(p, core, x, leaves):
    """De et al. 2024, equations 1 to 4, and the block of figure 2."""
    hidden, last = leaves
    u, last = convolve(p, affine(p, "project", x), last)
    gates, branch, n, new = affine(p, "gate_map", u), affine(p, "branch", x), len(hidden), []
    for j in range(n):
        r, i = sigmoid(gates[j]), sigmoid(gates[n + j])
        a = torch.exp(-torch.log(1 + torch.exp(p["Lambda"][j]))) ** (8 * r)
        new.append(a * hidden[j] + torch.sqrt(1 - a * a) * i * u[j])
    new = torch.stack(new)
    gelu = 0.5 * branch * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (branch + 0.044715 * branch**3)))
    return new * gelu, [new, last]


def ffm(p, core, x, leaves):
    """Morad et al. 2023, equations 5 to 11."""
    real, imaginary = leaves
    m, c = real.shape
    values, take, gate, skip = affine(p, "project", x).split(core.sizes)
    new_real, new_imaginary, flat = torch.zeros_like(real), torch.zeros_like(real), []
    for j in range(m):
        written = values[j] * sigmoid(take[j])
        for k in range(c):
            radius = torch.exp(-p["alpha"][j].abs())
            a, b = radius * torch.cos(p["omega"][k]), radius * torch.sin(p["omega"][k])
            new_real[j, k] = a * real[j, k] - b * imaginary[j, k] + written
            new_imaginary[j, k] = a * imaginary[j, k] + b * real[j, k]
            flat += [new_real[j, k], new_imaginary[j, k]]
    z = affine(p, "mix", torch.stack(flat))
    z = (z - z.mean()) / torch.sqrt(z.var(unbiased=False) + 1e-5)
    return sigmoid(gate) * z + (1 - sigmoid(gate)) * skip, [new_real, new_imaginary]


def mamba(p, core, x, leaves):
    """Gu and Dao 2023, algorithm 2 and figure 3."""
    memory, last = leaves
    states, channels = memory.shape
    u, z = affine(p, "project", x).split(channels)
    u, last = convolve(p, u, last)
    u = silu(u)
    low, B, C = affine(p, "select", u).split(core.sizes)
    step_size = torch.log(1 + torch.exp(affine(p, "step_size", low)))
    new, y = torch.zeros_like(memory), []
    for d in range(channels):
        read = p["D"][d] * u[d]
        for n in range(states):
            decay = torch.exp(-step_size[d] * torch.exp(p["log_A"][n, d]))
            value = decay * memory[n, d] + step_size[d] * B[n] * u[d]
            new[n, d] = value
            read = read + C[n] * value
        y.append(read * silu(z[d]))
    return torch.stack(y), [new, last]


def mamba2(p, core, x, leaves):
    """Dao and Gu 2024, section 7.1: heads share B and C."""
    memory, last = leaves
    heads, states, size = memory.shape
    channels = heads * size
    z, convolved, step_sizes = affine(p, "project", x).split([channels, channels + 2 * states, heads])
    convolved, last = convolve(p, convolved, last)
    u, B, C = silu(convolved).split([channels, states, states])
    new, o = torch.zeros_like(memory), []
    for h in range(heads):
        step_size = torch.log(1 + torch.exp(step_sizes[h] + p["step_size_bias"][h]))
        decay = torch.exp(-step_size * torch.exp(p["log_A"][h]))
        for j in range(size):
            channel = h * size + j
            read = p["D"][h] * u[channel]
            for n in range(states):
                value = decay * memory[h, n, j] + step_size * B[n] * u[channel]
                new[h, n, j] = value
                read = read + C[n] * value
            o.append(read * silu(z[channel]))
    o = torch.stack(o)
    return o / torch.sqrt((o * o).mean() + 1e-5) * p["norm.weight"], [new, last]
