"""The memory of Titans once more, from its equations, with a gradient by automatic differentiation."""

import torch
from torch import Tensor

from tests.naive.rows import sigmoid, silu, unit


def naive_titans(p: dict[str, Tensor], core, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of one sequence: x [F], weights and momenta of the memory."""
    weights, momenta = list(state[:2]), state[2:]

    def recall(weights: list[Tensor], u: Tensor) -> Tensor:
        hidden = weights[0] @ u
        return weights[1] @ (hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5)))

    query, key, value = silu(p["qkv.weight"] @ x).chunk(3)
    gates = p["gates_of_input.weight"] @ x + p["gates_of_input.bias"]
    rate, momentum, decay = sigmoid(gates)
    # The gradient at the weights, through which gradients still flow.
    loss = ((recall(weights, unit(key)) - value) ** 2).mean()
    surprise = torch.autograd.grad(loss, weights, create_graph=True)
    square = sum((gradient * gradient).sum() for gradient in surprise)
    if core.largest_surprise != float("inf"):
        surprise = [gradient / torch.sqrt(1 + square / core.largest_surprise**2) for gradient in surprise]
    momenta = [momentum * before - rate * now for before, now in zip(momenta, surprise, strict=True)]
    initial = [p["initial_weight1"], p["initial_weight2"]]
    forgotten = initial if core.forget_to == "initial" else [torch.zeros_like(weight) for weight in initial]
    weights = [
        (1 - decay) * weight + decay * zero + now for weight, zero, now in zip(weights, forgotten, momenta, strict=True)
    ]
    return recall(weights, unit(query)), [*weights, *momenta]
