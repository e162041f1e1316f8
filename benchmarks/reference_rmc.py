"""RMC as its released implementations run it: one step after the other, everything inside the step.

Santoro et al. 2018, https://arxiv.org/abs/1806.01822, from its equations: what the core ``rmc`` is
timed against.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from relmem.agents import MemoryCore


def reference_rmc(core: MemoryCore, x: Tensor, memory: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """The sequence that ``core(x, state, starts)`` computes, by a loop over the textbook step.

    :param core: an RMC core, of any options; only its parameters are used
    :param x: inputs [T, B, F]
    :param memory: memory before the first step [B, S, m]
    :param starts: where episodes begin [T, B]
    :return: outputs [T, B, O] and the memory after the last step [B, S, m]
    """
    parameters = dict(core.named_parameters()) | dict(core.named_buffers())
    outputs = []
    for x_t, starts_t in zip(x, starts, strict=True):
        initial = torch.eye(*memory.shape[1:], dtype=memory.dtype, device=memory.device)
        memory = torch.where(starts_t.view(-1, 1, 1), initial, memory)
        memory = reference_rmc_step(core, parameters, x_t, memory)
        outputs.append(core.out(memory.flatten(1)))
    return torch.stack(outputs), memory


def reference_rmc_step(core: MemoryCore, parameters: dict[str, Tensor], x: Tensor, memory: Tensor) -> Tensor:
    """One step: x [B, F], memory [B, S, m] -> memory [B, S, m]."""

    def affine(name: str, u: Tensor) -> Tensor:
        return F.linear(u, parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    def normalised(name: str, u: Tensor) -> Tensor:
        gain = parameters[f"{name}.weight"]
        return F.layer_norm(u, gain.shape, gain, parameters[f"{name}.bias"])

    width, joint = memory.shape[2], core.preset == "l0sg"
    projected = affine("input_projection", x).unsqueeze(1)  # [B, 1, m]
    rows = torch.cat([memory, projected], dim=1)  # [B, S + 1, m]
    for _ in range(core.blocks):
        qkv = normalised("qkv_norm", affine("qkv", rows)).unflatten(2, (core.heads, -1)).transpose(1, 2)
        query, key, value = qkv.split([core.key_size, core.key_size, width // core.heads], dim=3)
        weights = torch.softmax((query * core.key_size**-0.5) @ key.transpose(2, 3), dim=3)  # [B, H, S + 1, S + 1]
        rows = normalised("attention_norm", rows + (weights @ value).transpose(1, 2).flatten(2))
        hidden = rows
        for layer in range(core.mlp_layers):
            hidden = affine("mlp_shared" if joint else f"mlp.{2 * layer}", hidden)
            if joint or layer < core.mlp_layers - 1:
                hidden = F.relu(hidden)
        rows = normalised("mlp_norm", rows + hidden)
    candidate = rows[:, :-1]
    if core.gate == "none":
        return candidate
    gates = affine("gate_memory", memory.tanh()) + affine("gate_input", projected)
    input_gate, forget_gate = gates.chunk(2, dim=2)
    input_gate = torch.sigmoid(input_gate + parameters["input_bias"])
    forget_gate = torch.sigmoid(forget_gate + parameters["forget_bias"])
    return input_gate * candidate.tanh() + forget_gate * memory
