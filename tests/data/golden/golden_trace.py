"""What the scripts of this folder share that run a public implementation with parameters under our names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def draw(shapes: dict[str, tuple[int, ...]], scale: float = 0.5) -> dict[str, Tensor]:
    """Random parameters by name, in double precision."""
    return {name: scale * torch.randn(*shape, dtype=torch.float64) for name, shape in shapes.items()}


def save(
    name: str, parameters: dict[str, Tensor], x: Tensor, run: Callable[[dict[str, Tensor], Tensor], Tensor]
) -> None:
    """Run, and write parameters, x [T, B, F], weights w of the loss (y * w).sum(), y [T, B, O] and all gradients."""
    parameters = {key: value.detach().clone().requires_grad_() for key, value in parameters.items()}
    x = x.detach().clone().requires_grad_()
    y = run(parameters, x)
    w = torch.randn_like(y)
    gradients = torch.autograd.grad((y * w).sum(), [x, *parameters.values()])
    arrays = {"x": x, "y": y, "w": w, "grad_x": gradients[0]}
    arrays |= {f"param/{key}": value for key, value in parameters.items()}
    arrays |= {f"grad/{key}": gradient for key, gradient in zip(parameters, gradients[1:], strict=True)}
    path = Path(__file__).parent / f"{name}.npz"
    np.savez_compressed(path, **{key: value.detach().numpy() for key, value in arrays.items()})
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
