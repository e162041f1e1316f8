"""What NTM and DNC share: a controller beside a memory of cells, and addressing by content."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .core import MemoryCore, full_precision, output_map, start_orthogonal
from .unit import unit_length


class ControllerCore(MemoryCore):
    """An LSTM of C units that writes to and reads from a memory of N cells at every step.

    The reads of the last step are an input of the LSTM, and the output is its hidden state and the reads of this step,
    followed by a linear map where ``output_size`` is given. The LSTM's weights start orthogonal, its biases at zero.

    :param state: class of the state, which begins with ``hidden`` and ``cell`` of the LSTM, and has ``memory`` and
        ``read_weights``
    :param shapes: of the leaves behind the LSTM's
    :param read_heads: number R of read heads
    :param cell_size: width W of a cell; the natural output width is C + R * W
    """

    def __init__(
        self, input_size: int, output_size: int | None, state: type, shapes: tuple[tuple[int, ...], ...],
        controller_size: int, read_heads: int, cell_size: int,
    ) -> None:  # fmt: skip
        read_size = read_heads * cell_size
        width = controller_size + read_size
        shapes = ((controller_size,), (controller_size,), *shapes)
        super().__init__(input_size, width if output_size is None else output_size, state, shapes)
        self.read_heads = read_heads
        self.controller = nn.LSTMCell(input_size + read_size, controller_size)
        start_orthogonal(self.controller)
        self.out = output_map(width, output_size)

    @full_precision
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, cell = self.control(x, state)
        state = self.access(self._interface(hidden), state._replace(hidden=hidden, cell=cell))
        return self.out(torch.cat([hidden, reads(state)], dim=1)), state

    def control(self, x: Tensor, state: Any) -> tuple[Tensor, Tensor]:
        """What the LSTM holds next: hidden state and cells [B, C]."""
        return self.controller(torch.cat([x, reads(state)], dim=1), (state.hidden, state.cell))

    def _interface(self, hidden: Tensor) -> Any:
        """What the LSTM asks of the memory, by its hidden state [B, C]."""
        raise NotImplementedError

    @staticmethod
    def access(interface: Any, state: Any) -> Any:
        """Write to the memory, then find where to read."""
        raise NotImplementedError


def reads(state: Any) -> Tensor:
    """What the read heads find where they are [B, R * W]."""
    return (state.read_weights @ state.memory).flatten(1)


def content_weights(memory: Tensor, key: Tensor, strength: Tensor) -> Tensor:
    """softmax over cells of strength times the cosine of a key and a cell: memory [B, N, W], keys of heads [B, R, W],
    strength [B, R] -> weights [B, R, N], which sum to 1 over the cells."""
    cosine = unit_length(key) @ unit_length(memory).mT  # [B, R, N]
    return (strength.unsqueeze(2) * cosine).softmax(dim=2)
