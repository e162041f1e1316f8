"""Neural Turing machine (Graves, Wayne and Danihelka 2014): an LSTM with a memory of cells, which it addresses by
content and by shifting from where it was."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .addressing import content_weights
from .core import MemoryCore, full_precision, output_map
from .registry import register_core

LEAST_WEIGHT = 1e-12  # of a cell where weights are sharpened, for the gradient of a power


class NTMState(NamedTuple):
    hidden: Tensor  # of the controller [B, C]
    cell: Tensor  # of the controller [B, C]
    memory: Tensor  # M [B, N, W]
    write_weights: Tensor  # w [B, 1, N], of the one write head
    read_weights: Tensor  # w [B, R, N]


class Address(NamedTuple):
    """Where heads point to."""

    key: Tensor  # k [B, R, W]
    strength: Tensor  # β [B, R], positive
    gate: Tensor  # g [B, R], in (0, 1): by content, or from where the head was
    shift: Tensor  # s [B, R, S]: how likely it moves by how much; sums to 1
    sharpness: Tensor  # γ [B, R], at least 1


@register_core("ntm")
class NTMCore(MemoryCore):
    """An LSTM of C units with one write head and R read heads on a memory of N cells, which form a ring.

    "Neural Turing machines" (Graves, Wayne and Danihelka 2014, https://arxiv.org/abs/1410.5401); ``address`` follows
    equations 5 to 9. The memory is written before it is read. It begins empty, with every head at the first cell. The
    reads of the last step are an input of the LSTM, and the output is its hidden state and the reads of this step,
    followed by a linear map where ``output_size`` is given.

    Good at copying and at stepping through what was written in order. Slow, since no two steps can be taken at once,
    and it cannot tell which cells are free (see ``dnc``).

    :param controller_size: number of units C of the LSTM
    :param cells: number N of memory cells
    :param cell_size: width W of a cell
    :param read_heads: number R of read heads; the natural output width is C + R * W
    :param largest_shift: by how many cells a head can move in a step, to either side
    :raises ValueError: if a size is not a positive integer, or a head could move around the ring
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        controller_size: Count = 256,
        cells: Count = 64,
        cell_size: Count = 32,
        read_heads: Count = 2,
        largest_shift: Count = 1,
    ) -> None:
        require_options(NTMCore, locals())
        if 2 * largest_shift + 1 > cells:
            raise ValueError(
                f"cells must be at least {2 * largest_shift + 1} for shifts of up to {largest_shift} to either side, "
                f"got {cells}"
            )
        read_size = read_heads * cell_size
        width = controller_size + read_size
        shapes = ((controller_size,), (controller_size,), (cells, cell_size), (1, cells), (read_heads, cells))
        super().__init__(input_size, width if output_size is None else output_size, NTMState, shapes)
        self.read_heads = read_heads
        self.controller = nn.LSTMCell(input_size + read_size, controller_size)
        for parameter in self.controller.parameters():
            nn.init.orthogonal_(parameter) if parameter.dim() == 2 else nn.init.zeros_(parameter)
        self.sizes = [cell_size, 1, 1, 2 * largest_shift + 1, 1]
        self.addresses = nn.Linear(controller_size, (read_heads + 1) * sum(self.sizes))  # that of the write head first
        self.write = nn.Linear(controller_size, 2 * cell_size)  # what is erased, what is added
        self.out = output_map(width, output_size)

    def initial_state(self, batch_size: int) -> NTMState:
        state = super().initial_state(batch_size)
        first = F.one_hot(torch.zeros_like(state.write_weights[:, :, 0], dtype=torch.long), state.memory.shape[1])
        weights = first.to(self.dtype)  # [B, 1, N]
        return state._replace(write_weights=weights, read_weights=weights.expand(-1, self.read_heads, -1))

    @full_precision
    def step(self, x: Tensor, state: NTMState) -> tuple[Tensor, NTMState]:
        reads = (state.read_weights @ state.memory).flatten(1)  # of the last step [B, R * W]
        hidden, cell = self.controller(torch.cat([x, reads], dim=1), (state.hidden, state.cell))
        to_write, to_read = self._addresses(hidden)

        erase, add = self.write(hidden).unsqueeze(1).chunk(2, dim=2)  # [B, 1, W]
        write_weights = address(to_write, state.memory, state.write_weights)
        w = write_weights.mT  # [B, N, 1]
        memory = state.memory * (1 - w * erase.sigmoid()) + w * add

        read_weights = address(to_read, memory, state.read_weights)
        y = torch.cat([hidden, (read_weights @ memory).flatten(1)], dim=1)
        return self.out(y), NTMState(hidden, cell, memory, write_weights, read_weights)

    def _addresses(self, hidden: Tensor) -> tuple[Address, Address]:
        """Those of the write head and of the read heads."""
        parts = self.addresses(hidden).unflatten(1, (self.read_heads + 1, -1)).split(self.sizes, dim=2)
        key, strength, gate, shift, sharpness = parts
        strength, gate, sharpness = F.softplus(strength), gate.sigmoid(), 1 + F.softplus(sharpness)
        every = Address(key, strength.squeeze(2), gate.squeeze(2), shift.softmax(dim=2), sharpness.squeeze(2))
        return Address(*(part[:, :1] for part in every)), Address(*(part[:, 1:] for part in every))


def address(where: Address, memory: Tensor, last: Tensor) -> Tensor:
    """The weights of heads: memory [B, N, W], weights at the last step [B, R, N] -> [B, R, N]."""
    gate = where.gate.unsqueeze(2)
    by_content = content_weights(memory, where.key, where.strength)  # (5, 6)
    weights = gate * by_content + (1 - gate) * last  # (7)
    far = where.shift.shape[2] // 2
    moved = torch.stack([weights.roll(by, dims=2) for by in range(-far, far + 1)], dim=3)  # [B, R, N, S]
    weights = (moved @ where.shift.unsqueeze(3)).squeeze(3)  # (8)
    # (9), w^γ / Σ w^γ
    return (where.sharpness.unsqueeze(2) * weights.clamp(min=LEAST_WEIGHT).log()).softmax(dim=2)
