"""Neural Turing machine (Graves, Wayne and Danihelka 2014): an LSTM with a memory of cells, which it addresses by
content and by shifting from where it was."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .addressing import ControllerCore, content_weights
from .core import full_precision
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


class Interface(NamedTuple):
    """What the LSTM asks of the memory."""

    write_address: Address  # of the one write head
    read_address: Address  # of the R read heads
    erase: Tensor  # e [B, 1, W], in (0, 1)
    add: Tensor  # a [B, 1, W]


@register_core("ntm")
class NTMCore(ControllerCore):
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
        shapes = ((cells, cell_size), (1, cells), (read_heads, cells))
        super().__init__(input_size, output_size, NTMState, shapes, controller_size, read_heads, cell_size)
        self.sizes = [cell_size, 1, 1, 2 * largest_shift + 1, 1]
        self.addresses = nn.Linear(controller_size, (read_heads + 1) * sum(self.sizes))  # that of the write head first
        self.write = nn.Linear(controller_size, 2 * cell_size)  # what is erased, what is added

    def initial_state(self, batch_size: int) -> NTMState:
        state = super().initial_state(batch_size)
        first = F.one_hot(torch.zeros_like(state.write_weights[:, :, 0], dtype=torch.long), state.memory.shape[1])
        weights = first.to(self.dtype)  # [B, 1, N]
        return state._replace(write_weights=weights, read_weights=weights.expand(-1, self.read_heads, -1))

    @staticmethod
    def access(interface: Interface, state: NTMState) -> NTMState:
        """Write to the memory, then find where to read."""
        write_weights = address(interface.write_address, state.memory, state.write_weights)
        w = write_weights.mT  # [B, N, 1]
        memory = state.memory * (1 - w * interface.erase) + w * interface.add
        read_weights = address(interface.read_address, memory, state.read_weights)
        return NTMState(state.hidden, state.cell, memory, write_weights, read_weights)

    @full_precision
    def gates(self, x: Tensor, state: NTMState) -> dict[str, Tensor]:
        to_write, to_read, erase, _ = self._interface(self.control(x, state)[0])
        return {"write_by_content_gate": to_write.gate, "read_by_content_gate": to_read.gate, "erase_gate": erase}

    def _interface(self, hidden: Tensor) -> Interface:
        parts = self.addresses(hidden).unflatten(1, (self.read_heads + 1, -1)).split(self.sizes, dim=2)
        key, strength, gate, shift, sharpness = parts
        strength, gate, sharpness = F.softplus(strength), gate.sigmoid(), 1 + F.softplus(sharpness)
        every = Address(key, strength.squeeze(2), gate.squeeze(2), shift.softmax(dim=2), sharpness.squeeze(2))
        to_write, to_read = Address(*(part[:, :1] for part in every)), Address(*(part[:, 1:] for part in every))
        erase, add = self.write(hidden).unsqueeze(1).chunk(2, dim=2)
        return Interface(to_write, to_read, erase.sigmoid(), add)


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
