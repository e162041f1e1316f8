"""GTrXL written once more from its paper: one sequence, one head and one past step at a time."""

import math

import torch
from torch import Tensor


def naive_gtrxl_sequence(core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
    """x [T, B, F], starts [T, B] -> features [T, B, D], and what of each episode is within the window at the end."""
    p = dict(core.named_parameters())
    length = state.window.shape[1]
    columns, ends = [], []
    for b in range(x.shape[1]):
        kept = [row for row, filled in zip(state.window[b], state.filled[b], strict=True) if filled > 0.5]
        outputs = []
        for x_t, start in zip(x[:, b], starts[:, b], strict=True):
            kept = [] if start else kept
            y, now = _step(p, core.heads, x_t, kept)
            outputs.append(y)
            kept = [*kept, now][-length:]
        columns.append(torch.stack(outputs))
        ends.append(kept)
    return torch.stack(columns, dim=1), ends


def _step(p: dict[str, Tensor], heads: int, x: Tensor, past: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One step: x [F], past steps [D] each, the oldest first -> (output [D], this step as later ones see it [D])."""
    e = p["embedding.weight"] @ x + p["embedding.bias"] if "embedding.weight" in p else x
    now = _normal(p, "norm", e)
    width = len(e)
    size = width // heads
    attended = []
    for h in range(heads):
        rows = slice(h * size, (h + 1) * size)
        query = p["query.weight"][rows] @ now
        weights, values = [], []
        for age, seen in enumerate(reversed([*past, now])):
            key = p["key.weight"][rows] @ seen
            place = p["position.weight"][rows] @ _waves(age, width).to(x.dtype)
            logit = sum((query[i] + p["content_bias"][h, i]) * key[i] for i in range(size))
            logit = logit + sum((query[i] + p["position_bias"][h, i]) * place[i] for i in range(size))
            weights.append((logit / math.sqrt(size)).exp())
            values.append(p["value.weight"][rows] @ seen)
        attended.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    y = (p["merge.weight"] @ torch.cat(attended)).clamp(min=0)
    h = _gate(p, "attention_gate", e, y)
    hidden = (p["mlp.0.weight"] @ _normal(p, "mlp_norm", h) + p["mlp.0.bias"]).clamp(min=0)
    return _gate(p, "mlp_gate", h, (p["mlp.2.weight"] @ hidden + p["mlp.2.bias"]).clamp(min=0)), now


def _normal(p: dict[str, Tensor], name: str, u: Tensor) -> Tensor:
    return (u - u.mean()) / torch.sqrt(((u - u.mean()) ** 2).mean() + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def _gate(p: dict[str, Tensor], name: str, x: Tensor, y: Tensor) -> Tensor:
    if f"{name}.bias" not in p:
        return x + y
    d = len(x)
    w_r, w_z, w_g = (p[f"{name}.of_y.weight"][i * d : (i + 1) * d] for i in range(3))
    u_r, u_z = (p[f"{name}.of_x.weight"][i * d : (i + 1) * d] for i in range(2))
    r = 1 / (1 + torch.exp(-(w_r @ y + u_r @ x)))
    z = 1 / (1 + torch.exp(-(w_z @ y + u_z @ x - p[f"{name}.bias"])))
    return (1 - z) * x + z * (w_g @ y + p[f"{name}.of_kept.weight"] @ (r * x)).tanh()


def _waves(age: int, width: int) -> Tensor:
    half = (width + 1) // 2
    angles = [age / 10_000 ** (2 * i / width) for i in range(half)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)[:width]
