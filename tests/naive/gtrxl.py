"""GTrXL written once more from its paper: one sequence, one head and one past step at a time."""

import math

import torch
from torch import Tensor

from tests.naive.rows import affine, mean_of, normal, sigmoid


def naive_gtrxl(p: dict[str, Tensor], core, x: Tensor, leaves: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of one sequence: x [F], window [w, D] and which rows of it are filled [w]."""
    window, filled = leaves
    e = affine(p, "embedding", x) if "embedding.weight" in p else x
    now = normal(p, "norm", e)
    past = [row for row, is_filled in zip(window, filled, strict=True) if is_filled > 0.5]
    width = len(e)
    size = width // core.heads
    attended = []
    for h in range(core.heads):
        rows = slice(h * size, (h + 1) * size)
        query = p["query.weight"][rows] @ now
        logits, values = [], []
        for age, seen in enumerate(reversed([*past, now])):
            key = p["key.weight"][rows] @ seen
            place = p["position.weight"][rows] @ _waves(age, width).to(x.dtype)
            logit = sum((query[i] + p["content_bias"][h, i]) * key[i] for i in range(size))
            logit = logit + sum((query[i] + p["position_bias"][h, i]) * place[i] for i in range(size))
            logits.append(logit / math.sqrt(size))
            values.append(p["value.weight"][rows] @ seen)
        attended.append(mean_of(values, logits))
    h = _gate(p, "attention_gate", e, (p["merge.weight"] @ torch.cat(attended)).clamp(min=0))
    hidden = affine(p, "mlp.0", normal(p, "mlp_norm", h)).clamp(min=0)
    y = _gate(p, "mlp_gate", h, affine(p, "mlp.2", hidden).clamp(min=0))
    return y, [torch.stack([*window[1:], now]), torch.cat([filled[1:], torch.ones_like(filled[:1])])]


def _gate(p: dict[str, Tensor], name: str, x: Tensor, y: Tensor) -> Tensor:
    if f"{name}.bias" not in p:
        return x + y
    d = len(x)
    w_r, w_z, w_g = (p[f"{name}.of_y.weight"][i * d : (i + 1) * d] for i in range(3))
    u_r, u_z = (p[f"{name}.of_x.weight"][i * d : (i + 1) * d] for i in range(2))
    r = sigmoid(w_r @ y + u_r @ x)
    z = sigmoid(w_z @ y + u_z @ x - p[f"{name}.bias"])
    return (1 - z) * x + z * (w_g @ y + p[f"{name}.of_kept.weight"] @ (r * x)).tanh()


def _waves(age: int, width: int) -> Tensor:
    half = (width + 1) // 2
    angles = [age / 10_000 ** (2 * i / width) for i in range(half)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)[:width]
