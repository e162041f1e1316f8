"""Gated recurrences once more, unit by unit from their equations: one step of one row each."""

import torch

from tests.naive.rows import affine, sigmoid


def rnn(p, core, x, leaves):
    """Elman 1990."""
    (h,) = leaves
    W, U, b, c = (p[f"rnn.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    new = torch.stack([torch.tanh((W[i] * x).sum() + b[i] + (U[i] * h).sum() + c[i]) for i in range(len(h))])
    return new, [new]


def candidate_of(core, u):
    """h̃; or g of appendix B.3 of Feng et al."""
    if core.candidate == "linear":
        return u
    return u + 0.5 if u >= 0 else sigmoid(u)


def min_gru(p, core, x, leaves):
    """Feng et al. 2024, section 3.1."""
    (h,), n = leaves, len(leaves[0])
    logits, new = affine(p, "project", x), []
    for i in range(n):
        z = sigmoid(logits[n + i])
        new.append((1 - z) * h[i] + z * candidate_of(core, logits[i]))
    return torch.stack(new), [torch.stack(new)]


def min_lstm(p, core, x, leaves):
    """Feng et al. 2024, section 3.2."""
    (h,), n = leaves, len(leaves[0])
    logits, new = affine(p, "project", x), []
    for i in range(n):
        f, take = sigmoid(logits[n + i]), sigmoid(logits[2 * n + i])
        new.append(f / (f + take) * h[i] + take / (f + take) * candidate_of(core, logits[i]))
    return torch.stack(new), [torch.stack(new)]


def slstm(p, core, x, leaves):
    """Beck et al. 2024, equations 8 to 17, with the stabiliser. Weights of a head lie side by side: z, i, f, o."""
    hidden, cell, normaliser, stabiliser = leaves
    heads, d = hidden.shape
    from_input, R = affine(p, "project", x), p["recurrent"]
    new = [torch.zeros_like(leaf) for leaf in leaves]
    for head in range(heads):
        for j in range(d):
            z, i, f, o = (
                from_input[head * 4 * d + part * d + j]
                + sum(hidden[head, k] * R[head, k, part * d + j] for k in range(d))
                for part in range(4)
            )
            log_f = torch.log(sigmoid(f)) if core.forget == "sigmoid" else f
            c, n, m = cell[head, j], normaliser[head, j], stabiliser[head, j]
            new_m = i if n == 0 else max(log_f + m, i)
            c = torch.exp(log_f + m - new_m) * c + torch.exp(i - new_m) * torch.tanh(z)
            n = torch.exp(log_f + m - new_m) * n + torch.exp(i - new_m)
            for leaf, value in zip(new, (sigmoid(o) * c / n, c, n, new_m), strict=True):
                leaf[head, j] = value
    return new[0].flatten(), new
