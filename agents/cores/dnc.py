"""Differentiable neural computer (Graves et al. 2016): an LSTM with a memory of cells, which it allocates, writes and
reads by content and in the order of writing."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .addressing import ControllerCore, content_weights
from .core import full_precision
from .registry import register_core

LEAST_USAGE = 1e-6  # of a cell where usages are multiplied, since the gradient of a product divides by its factors


class DNCState(NamedTuple):
    hidden: Tensor  # of the controller [B, C]
    cell: Tensor  # of the controller [B, C]
    memory: Tensor  # M [B, N, W]
    usage: Tensor  # u [B, N]
    link: Tensor  # L [B, N, N]: how much cell i was written right after cell j
    precedence: Tensor  # p [B, N]: how much a cell was the last one written
    write_weights: Tensor  # w^w [B, N]
    read_weights: Tensor  # w^r [B, R, N]


class Interface(NamedTuple):
    """What the LSTM asks of the memory."""

    read_keys: Tensor  # k^r [B, R, W]
    read_strengths: Tensor  # β^r [B, R], at least 1
    write_key: Tensor  # k^w [B, W]
    write_strength: Tensor  # β^w [B, 1], at least 1
    erase: Tensor  # e [B, W], in (0, 1)
    write: Tensor  # v [B, W]
    free_gates: Tensor  # f [B, R], in (0, 1)
    allocation_gate: Tensor  # g^a [B, 1], in (0, 1)
    write_gate: Tensor  # g^w [B, 1], in (0, 1)
    read_modes: Tensor  # π [B, R, 3]: backward, by content, forward; they sum to 1


@register_core("dnc")
class DNCCore(ControllerCore):
    """An LSTM of C units that writes to one and reads from R places of a memory of N cells at every step.

    "Hybrid computing using a neural network with dynamic external memory" (Graves et al. 2016,
    https://doi.org/10.1038/nature20101), its methods; ``access`` follows the equations. The reads of the last step are
    an input of the LSTM, and the output is its hidden state and the reads of this step, followed by a linear map where
    ``output_size`` is given (the paper's W_y and W_r).

    Good at what needs cells of its own for each item, and at recalling in the order of writing. Slow, since no two
    steps can be taken at once, and slow to learn.

    :param controller_size: number of units C of the LSTM
    :param cells: number N of memory cells
    :param cell_size: width W of a cell
    :param read_heads: number R of read heads; the natural output width is C + R * W
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        controller_size: Count = 256,
        cells: Count = 32,
        cell_size: Count = 32,
        read_heads: Count = 4,
    ) -> None:
        require_options(DNCCore, locals())
        shapes = ((cells, cell_size), (cells,), (cells, cells), (cells,), (cells,), (read_heads, cells))
        super().__init__(input_size, output_size, DNCState, shapes, controller_size, read_heads, cell_size)
        read_size = read_heads * cell_size
        self.sizes = [read_size, read_heads, cell_size, 1, cell_size, cell_size, read_heads, 1, 1, 3 * read_heads]
        self.interface = nn.Linear(controller_size, sum(self.sizes))

    @staticmethod
    def access(interface: Interface, state: DNCState) -> DNCState:
        """Write to the memory, then find where to read."""
        read_keys, read_strengths, write_key, write_strength, erase, write, free, allocate, gate, modes = interface

        # A cell is in use if it was, or has been written, unless a head has read it and frees it.
        usage = state.usage + state.write_weights - state.usage * state.write_weights
        usage = usage * (1 - free.unsqueeze(2) * state.read_weights).prod(dim=1)  # [B, N]
        usage = usage.clamp(0, 1)  # which rounding could leave

        # Where to write: to unused cells, or by content.
        by_content = content_weights(state.memory, write_key.unsqueeze(1), write_strength).squeeze(1)  # [B, N]
        w = gate * (allocate * allocation(usage) + (1 - allocate) * by_content)  # w^w [B, N]
        memory = state.memory * (1 - w.unsqueeze(2) * erase.unsqueeze(1)) + w.unsqueeze(2) * write.unsqueeze(1)

        # The order of writing.
        others = 1 - torch.eye(w.shape[1], dtype=w.dtype, device=w.device)  # a cell does not follow itself [N, N]
        kept = 1 - w.unsqueeze(2) - w.unsqueeze(1)  # [B, N, N]
        link = others * (kept * state.link + w.unsqueeze(2) * state.precedence.unsqueeze(1))
        precedence = (1 - w.sum(dim=1, keepdim=True)) * state.precedence + w

        # Where to read: what was written before what was read last, by content, or what was written after it.
        forward = state.read_weights @ link.mT  # [B, R, N]
        backward = state.read_weights @ link
        ways = torch.stack([backward, content_weights(memory, read_keys, read_strengths), forward], dim=3)
        read_weights = (ways @ modes.unsqueeze(3)).squeeze(3)  # [B, R, N]
        return DNCState(state.hidden, state.cell, memory, usage, link, precedence, w, read_weights)

    @full_precision
    def gates(self, x: Tensor, state: DNCState) -> dict[str, Tensor]:
        asked = self._interface(self.control(x, state)[0])
        gates = {"allocation_gate": asked.allocation_gate, "write_gate": asked.write_gate}
        return gates | {"free_gate": asked.free_gates, "erase_gate": asked.erase}

    def _interface(self, hidden: Tensor) -> Interface:
        parts = self.interface(hidden).split(self.sizes, dim=1)
        keys, strengths, write_key, write_strength, erase, write, free, allocate, gate, modes = parts
        return Interface(
            keys.unflatten(1, (self.read_heads, -1)),
            1 + F.softplus(strengths),
            write_key,
            1 + F.softplus(write_strength),
            erase.sigmoid(),
            write,
            free.sigmoid(),
            allocate.sigmoid(),
            gate.sigmoid(),
            modes.unflatten(1, (self.read_heads, 3)).softmax(dim=2),
        )


def allocation(usage: Tensor) -> Tensor:
    """Weights a [B, N] of the cells to write something new to: the least used first, each to the degree that it is free
    and that those before it are not."""
    usage, order = (LEAST_USAGE + (1 - LEAST_USAGE) * usage).sort(dim=1, stable=True)
    before = torch.cat([torch.ones_like(usage[:, :1]), usage[:, :-1]], dim=1).cumprod(dim=1)
    return torch.zeros_like(usage).scatter(1, order, (1 - usage) * before)
