"""Relational Memory Core (Santoro et al. 2018): memory slots that attend to each other and to the input.

https://arxiv.org/abs/1806.01822, with the semantics of the authors' code in Sonnet 1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .registry import register_core
from .scan import loop
from .squash import squash


class RMCState(NamedTuple):
    memory: Tensor  # [B, S, m]


class Projection(NamedTuple):
    """What the input alone decides about a step, so that a whole sequence is projected at once."""

    row: Tensor  # the input as one more row of the memory [..., m]
    gates: Tensor | None  # the input's share of both gates [..., 2 * g]


@register_core("rmc")
class RMCCore(MemoryCore):
    """Multi-head attention over S memory slots and the input, and gates that decide what each slot takes over.

    The output is the whole memory, flattened, followed by a linear map where ``output_size`` is given.

    :param preset: sonnet (as in the authors' code, but see ``blocks``) or l0sg (a PyTorch port that others used as
        their baseline: layer normalisation over all rows jointly, one weight shared by all layers of the attention
        network, a ReLU after its last layer too, learned gate biases)
    :param slots: number S of memory slots
    :param heads: number of attention heads
    :param head_size: width of a head's values; a slot has width m = heads * head_size
    :param key_size: width of a head's queries and keys; None: that of its values
    :param blocks: number of attention blocks per step, which share all their weights. In Sonnet 1 they share only the
        network after the attention: each has its own map to queries, keys and values and its own normalisations
    :param mlp_layers: layers of the network after the attention
    :param gate: one gate per unit, per slot (memory), or none
    :raises ValueError: if a size is not a positive integer, or the preset or the kind of gate is unknown
    """

    input_bias: Tensor
    forget_bias: Tensor
    mlp: nn.Sequential
    mlp_shared: nn.Linear

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        preset: Literal["sonnet", "l0sg"] = "sonnet",
        slots: Count = 4,
        heads: Count = 4,
        head_size: Count = 32,
        key_size: Count | None = None,
        blocks: Count = 1,
        mlp_layers: Count = 2,
        gate: Literal["unit", "memory", "none"] = "unit",
    ) -> None:
        require_options(RMCCore, locals())
        key_size = head_size if key_size is None else key_size
        width = heads * head_size
        super().__init__(input_size, slots * width if output_size is None else output_size, RMCState, ((slots, width),))
        self.preset, self.heads, self.key_size, self.blocks, self.gate = preset, heads, key_size, blocks, gate
        self.input_projection = nn.Linear(input_size, width)
        qkv_width = heads * (2 * key_size + head_size)
        self.qkv = nn.Linear(width, qkv_width)
        self.qkv_norm = self._norm(slots, qkv_width)
        self.attention_norm = self._norm(slots, width)
        self.mlp_norm = self._norm(slots, width)
        self.mlp_layers = mlp_layers
        if preset == "l0sg":
            self.mlp_shared = nn.Linear(width, width)
        else:
            layers: list[nn.Module] = []
            for _ in range(mlp_layers):
                layers += [nn.Linear(width, width), nn.ReLU()]
            self.mlp = nn.Sequential(*layers[:-1])
        if gate != "none":
            gates = 2 * (width if gate == "unit" else 1)
            self.gate_input = nn.Linear(width, gates)
            self.gate_memory = nn.Linear(width, gates)
            learned = preset == "l0sg"
            for name, start in (("input_bias", 0.0), ("forget_bias", 1.0)):
                bias = torch.tensor(start)
                self.register_parameter(name, nn.Parameter(bias)) if learned else self.register_buffer(name, bias)
        self.out = output_map(slots * width, output_size)

    def _norm(self, slots: int, width: int) -> nn.LayerNorm:
        """Normalisation of each row, or of the S + 1 rows jointly."""
        return nn.LayerNorm((slots + 1, width) if self.preset == "l0sg" else width)

    def initial_state(self, batch_size: int) -> RMCState:
        """Slots that differ: the rows of an identity matrix, padded with zeros or cut off at width m."""
        slots, width = self.state_spec["memory"]
        identity = torch.eye(slots, width, dtype=self.dtype, device=self._like.device)
        return RMCState(identity.expand(batch_size, slots, width))

    @full_precision
    def step(self, x: Tensor, state: RMCState) -> tuple[Tensor, RMCState]:
        _, state = self._step(self._project(x), state)
        return self.out(state.memory.flatten(1)), state

    def sequence(self, x: Tensor, state: RMCState, starts: Tensor, since: int) -> tuple[Tensor, RMCState]:
        """The loop over steps, but inputs are projected and outputs mapped for all steps at once."""
        row, gates = self._project(x)
        gates_of_steps = [None] * len(row) if gates is None else gates
        inputs = [Projection(*parts) for parts in zip(row, gates_of_steps, strict=True)]
        memories, state = loop(self._step, self.reset, inputs, state, starts)
        return self.out(torch.stack(memories[since:]).flatten(2)), state

    def _step(self, projection: Projection, state: RMCState) -> tuple[Tensor, RMCState]:
        """The update, for a projected input: the next memory [B, S, m], and the state that holds it."""
        memory, rows = state.memory, torch.cat([state.memory, projection.row.unsqueeze(1)], dim=1)  # [B, S + 1, m]
        for _ in range(self.blocks):
            rows = self.attention_norm(rows + self._attend(rows))
            rows = self.mlp_norm(rows + self._mlp(rows))
        following = rows[:, :-1]
        if projection.gates is not None:
            input_gate, forget_gate = self._gates(projection.gates, memory)
            following = torch.addcmul(input_gate * squash(following), forget_gate, memory)
        return following, RMCState(following)

    @full_precision
    def gates(self, x: Tensor, state: RMCState) -> dict[str, Tensor]:
        projection = self._project(x)
        if projection.gates is None:
            return {}
        return dict(zip(("input_gate", "forget_gate"), self._gates(projection.gates, state.memory), strict=True))

    def _project(self, x: Tensor) -> Projection:
        row = self.input_projection(x)  # [..., m]
        return Projection(row, None if self.gate == "none" else self.gate_input(row))

    def _attend(self, rows: Tensor) -> Tensor:
        """Multi-head dot-product attention of every row to every row: [B, S + 1, m] -> [B, S + 1, m]."""
        qkv = self.qkv_norm(self.qkv(rows)).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, H, S + 1, 2 k + v]
        query, key, value = qkv.split([self.key_size, self.key_size, qkv.shape[3] - 2 * self.key_size], dim=3)
        # Keys by queries: a softmax over a short last dimension is several times slower.
        weights = torch.softmax(key @ query.mT * self.key_size**-0.5, dim=2)  # [B, H, S + 1, S + 1]
        return (weights.mT @ value).transpose(1, 2).flatten(2)

    def _mlp(self, rows: Tensor) -> Tensor:
        """The row-wise network after the attention."""
        if self.preset == "sonnet":
            return self.mlp(rows)
        for _ in range(self.mlp_layers):
            rows = F.relu(self.mlp_shared(rows))
        return rows

    def _gates(self, from_input: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Input and forget gate, each [B, S, m] or [B, S, 1]."""
        input_gate, forget_gate = (self.gate_memory(squash(memory)) + from_input.unsqueeze(1)).chunk(2, dim=2)
        return torch.sigmoid(input_gate + self.input_bias), torch.sigmoid(forget_gate + self.forget_bias)
