"""A sequence of RMC steps as one node of the autograd graph.

The step, for a memory M [B, S, m]; LN is layer normalisation, · a linear map with bias:

    rows  = M, and below it the input's row
    q,k,v = LN(rows · W), split into heads
    h     = LN(rows + softmax(q kᵀ / √k) v)
    c     = LN(h + mlp(h))                       with more blocks: rows = c, and again
    M'    = σ(i) ∘ tanh(c) + σ(f) ∘ M            where (i, f) = tanh(M) U + the input's share

Arranged for speed:

* Only what depends on M is in the loop; the caller projects the inputs, and adds all constant biases to their share of
  the gates, for the whole sequence at once.
* The input's row of c is discarded. Where rows are normalised one by one and there is one block, that row is not needed
  as a query either, and its keys and values are known before the loop: R = S rows pass through a step, else R = S + 1.
* The backward pass is written out. A product that makes the gradient of a weight adds to it in place, and nothing is
  cut, zero-filled or concatenated where a view does.
* Scores are laid out with the keys first: a softmax over the first dimension works on whole vectors, where one over so
  short a last dimension works on single numbers.
* The products with weights, nearly all of the arithmetic, may run in bfloat16. Memories, sums, normalisations, the
  attention and the gradients of weights then stay in the dtype of the parameters.

The sums are those of ``RMCCore.step`` in another order, so the numbers are the same up to rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .base import without_autocast
from .squash import squash

Tape = list[Tensor]
"""What the backward pass needs: pushed on the way forward, popped on the way back."""


class Options(NamedTuple):
    """The options of a core that the loop depends on."""

    heads: int
    key_size: int
    blocks: int
    last_relu: bool  # whether a ReLU follows the last layer of the network too
    products: torch.dtype  # of the products with weights
    recording: bool  # whether a backward pass may follow


class RMCSequence(torch.autograd.Function):
    """The memory after every step, [T, B, S, m].

    :param options: what of the core's options the loop depends on
    :param inputs: the input's row [T, B, m]; or its normalised queries, keys and values [T, B, H * (2 k + v)], and then
        the row is no query
    :param gates: the input's share of both gates, and all biases [T, B, 2 * g]; None: no gates
    :param memory: the memory before the first step [B, S, m]
    :param initial: the memory where an episode begins [B, S, m], a constant
    :param starts: where episodes begin, bool [T, B]
    :param gate_weight: U as the map of a linear layer [2 * g, m]; None: no gates
    :param parameters: weight and bias of W, of the three normalisations (of q, k and v, after the attention, after the
        network), and of every layer of the network
    """

    @staticmethod
    def forward(
        ctx: Any,
        options: Options,
        inputs: Tensor,
        gates: Tensor | None,
        memory: Tensor,
        initial: Tensor,
        starts: Tensor,
        gate_weight: Tensor | None,
        *parameters: Tensor,
    ) -> Tensor:
        block = _Block(options, *parameters)
        gate = None if gate_weight is None else _Gate(gate_weight, options.products)
        tape: Tape = []
        slots, width = memory.shape[1:]
        any_start = starts.any(dim=1).tolist()
        memories = []
        query_input = inputs.shape[2] == width
        for t, x in enumerate(inputs):
            if any_start[t]:
                memory = torch.where(starts[t].view(-1, 1, 1), initial, memory)
            rows = torch.cat([memory, x.unsqueeze(1)], dim=1) if query_input else memory  # [B, R, m]
            for _ in range(options.blocks):
                rows = block.forward(tape, rows, None if query_input else x)
            candidate = rows[:, :slots]
            memory = candidate if gate is None or gates is None else gate.forward(tape, candidate, memory, gates[t])
            memories.append(memory)
            if not options.recording:
                tape.clear()
        ctx.options, ctx.any_start, ctx.query_input = options, any_start, query_input
        ctx.save_for_backward(starts, inputs, gates, gate_weight, *parameters, *tape)
        ctx.parameters = len(parameters)
        return torch.stack(memories)  # [T, B, S, m]

    @staticmethod
    @without_autocast
    @once_differentiable
    def backward(ctx: Any, d_memories: Tensor) -> Any:
        starts, inputs, gates, gate_weight, *saved = ctx.saved_tensors
        block = _Block(ctx.options, *saved[: ctx.parameters])
        gate = None if gate_weight is None else _Gate(gate_weight, ctx.options.products)
        tape: Tape = saved[ctx.parameters :]
        d_inputs = torch.empty_like(inputs)
        d_gates = None if gates is None else torch.empty_like(gates)
        slots = d_memories.shape[2]
        d_memory: Tensor | None = None  # of the memory after the step
        for t in reversed(range(len(inputs))):
            d_memory = d_memories[t] if d_memory is None else d_memory.add_(d_memories[t])
            d_before = None
            if gate is not None and d_gates is not None:
                d_memory, d_before = gate.backward(tape, d_memory, d_gates[t])
            if ctx.query_input:
                d_rows = torch.cat([d_memory, torch.zeros_like(d_memory[:, :1])], dim=1)  # [B, S + 1, m]
                for _ in range(ctx.options.blocks):
                    d_rows = block.backward(tape, d_rows, None)
                d_memory, d_inputs[t] = d_rows[:, :slots], d_rows[:, slots]
            else:
                d_memory = block.backward(tape, d_memory, d_inputs[t])
            if d_before is not None:
                d_memory += d_before
            if ctx.any_start[t]:
                d_memory.masked_fill_(starts[t].view(-1, 1, 1), 0)
        return None, d_inputs, d_gates, d_memory, None, None, gate and gate.d_weight, *block.gradients()


class _Block:
    """An attention block: rows [B, R, m] -> [B, R, m]."""

    def __init__(self, options: Options, *parameters: Tensor) -> None:
        pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
        self.options = options
        self.qkv = _Affine(*pairs[0], options.products)
        self.qkv_norm, self.attention_norm, self.mlp_norm = (_Norm(*pair) for pair in pairs[1:4])
        self.mlp = [_Affine(*pair, options.products) for pair in pairs[4:]]
        self.relus = [True] * (len(self.mlp) - 1) + [options.last_relu]

    def gradients(self) -> list[Tensor]:
        norms = [self.qkv_norm, self.attention_norm, self.mlp_norm]
        layers: list[_Affine | _Norm] = [self.qkv, *norms, *self.mlp]
        return [gradient for layer in layers for gradient in (layer.d_weight, layer.d_bias)]

    def forward(self, tape: Tape, rows: Tensor, input_qkv: Tensor | None) -> Tensor:
        attended = self._attend(tape, self.qkv_norm.forward(tape, self.qkv.forward(tape, rows)), input_qkv)
        rows = self.attention_norm.forward(tape, attended.add_(rows))
        hidden = rows
        for layer, relu in zip(self.mlp, self.relus, strict=True):
            hidden = layer.forward(tape, hidden)
            if relu:
                hidden.relu_()
        if self.options.last_relu:
            tape.append(hidden)
            return self.mlp_norm.forward(tape, hidden + rows)
        return self.mlp_norm.forward(tape, hidden.add_(rows))

    def backward(self, tape: Tape, d_rows: Tensor, d_input_qkv: Tensor | None) -> Tensor:
        d_rows = self.mlp_norm.backward(tape, d_rows)
        after = tape.pop() if self.options.last_relu else None
        d_hidden = d_rows
        for layer, relu in zip(reversed(self.mlp), reversed(self.relus), strict=True):
            if relu:
                d_hidden = torch.ops.aten.threshold_backward(d_hidden, after, 0)
            after = tape[-1]
            d_hidden = layer.backward(tape, d_hidden)
        d_rows = self.attention_norm.backward(tape, d_rows.add_(d_hidden))
        d_qkv = self.qkv_norm.backward(tape, self._attend_backward(tape, d_rows, d_input_qkv))
        return d_rows.add_(self.qkv.backward(tape, d_qkv))

    def _attend(self, tape: Tape, qkv: Tensor, input_qkv: Tensor | None) -> Tensor:
        """softmax(q kᵀ / √k) v: [B, R, H * (2 k + v)] -> [B, R, m]."""
        batch, queries, heads = len(qkv), qkv.shape[1], self.options.heads
        by_head = qkv.unflatten(2, (heads, -1)).transpose(1, 2)  # [B, H, R, 2 k + v]
        if input_qkv is None:
            keys = by_head.contiguous()
        else:
            keys = qkv.new_empty(batch, heads, queries + 1, by_head.shape[3])
            keys[:, :, :queries] = by_head
            keys[:, :, queries] = input_qkv.unflatten(1, (heads, -1))
        query, key, value = self._split(keys.flatten(0, 1), queries)
        scores = _scaled_bmm(key, query.mT, self.options.key_size)  # [B * H, S + 1 keys, R queries]
        weights = scores.transpose(0, 1).contiguous().softmax(dim=0)  # [S + 1, B * H, R]
        tape += [keys, weights]
        attended = torch.bmm(weights.permute(1, 2, 0), value)  # [B * H, R, v]
        return attended.unflatten(0, (batch, heads)).transpose(1, 2).flatten(2)

    def _attend_backward(self, tape: Tape, d_attended: Tensor, d_input_qkv: Tensor | None) -> Tensor:
        weights, keys = tape.pop(), tape.pop()
        batch, queries, heads = len(d_attended), d_attended.shape[1], self.options.heads
        query, key, value = self._split(keys.flatten(0, 1), queries)
        d_attended = d_attended.unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1)  # [B * H, R, v]
        d_weights = torch.bmm(value, d_attended.mT).transpose(0, 1).contiguous()  # [S + 1, B * H, R]
        d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, 0, weights.dtype).transpose(0, 1)
        d_query = _scaled_bmm(d_scores.mT, key, self.options.key_size)
        d_key = _scaled_bmm(d_scores, query, self.options.key_size)
        d_value = torch.bmm(weights.transpose(0, 1), d_attended)  # [B * H, S + 1, v]
        d_qkv = keys.new_empty(batch, queries, heads, keys.shape[3])
        d_own = self._split(d_qkv.transpose(1, 2), queries)
        for d_part, d_rows in zip(d_own, (d_query, d_key, d_value), strict=True):
            d_part.copy_(d_rows[:, :queries].unflatten(0, (batch, heads)))
        if d_input_qkv is not None:
            d_none, *d_input = self._split(d_input_qkv.unflatten(1, (heads, 1, -1)), 1)
            d_none.zero_()  # the input is no query
            for d_part, d_rows in zip(d_input, (d_key, d_value), strict=True):
                d_part.copy_(d_rows[:, queries:].unflatten(0, (batch, heads)))
        return d_qkv.flatten(2)  # [B, R, H * (2 k + v)]

    def _split(self, keys: Tensor, queries: int) -> tuple[Tensor, Tensor, Tensor]:
        """Views of [..., S + 1, 2 k + v]: the queries of the first rows, all keys, all values."""
        k = self.options.key_size
        return keys[..., :queries, :k], keys[..., k : 2 * k], keys[..., 2 * k :]


class _Gate:
    """What every slot takes over from its candidate, and what it keeps."""

    def __init__(self, weight: Tensor, products: torch.dtype) -> None:
        self.map = _Linear(weight, products)

    @property
    def d_weight(self) -> Tensor:
        return self.map.d_weight

    def forward(self, tape: Tape, candidate: Tensor, memory: Tensor, from_input: Tensor) -> Tensor:
        squashed, candidate = squash(memory), squash(candidate)
        gates = (from_input.unsqueeze(1) + self.map.forward(tape, squashed)).sigmoid_()  # [B, S, 2 * g]
        take, keep = gates.chunk(2, dim=2)
        tape += [memory, squashed, gates, candidate]
        return (take * candidate).addcmul_(keep, memory)

    def backward(self, tape: Tape, d_memory: Tensor, d_from_input: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the candidate before its tanh and of the memory before the step."""
        candidate, gates, squashed, memory = (tape.pop() for _ in range(4))
        take, keep = gates.chunk(2, dim=2)
        d_gates = torch.empty_like(gates)
        for d_gate, partner in zip(d_gates.chunk(2, dim=2), (candidate, memory), strict=True):
            if d_gate.shape == partner.shape:
                torch.mul(d_memory, partner, out=d_gate)
            else:  # one gate for a whole slot
                torch.sum(d_memory * partner, dim=2, keepdim=True, out=d_gate)
        d_logits = torch.ops.aten.sigmoid_backward(d_gates, gates)
        torch.sum(d_logits, dim=1, out=d_from_input)
        d_squashed = self.map.backward(tape, d_logits).to(squashed.dtype)
        d_before = torch.ops.aten.tanh_backward(d_squashed, squashed).addcmul_(d_memory, keep)
        return torch.ops.aten.tanh_backward(d_memory * take, candidate), d_before


class _Linear:
    """A linear map without bias, and the gradient of its weight; products come in the dtype asked for."""

    def __init__(self, weight: Tensor, products: torch.dtype) -> None:
        self.weight, self.d_weight = weight.to(products), torch.zeros_like(weight)

    def forward(self, tape: Tape, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        tape.append(x)
        return x @ self.weight.mT

    def backward(self, tape: Tape, d_y: Tensor) -> Tensor:
        d_y = d_y.to(self.weight.dtype)
        transposed, x = d_y.flatten(0, 1).mT, tape.pop().flatten(0, 1)
        if self.d_weight.dtype == x.dtype:
            self.d_weight.addmm_(transposed, x)
        else:
            self.d_weight += transposed @ x
        return d_y @ self.weight


class _Affine(_Linear):
    """A linear map with bias, and its gradients; sums are in the dtype of the bias."""

    def __init__(self, weight: Tensor, bias: Tensor, products: torch.dtype) -> None:
        super().__init__(weight, products)
        self.bias, self.d_bias = bias, torch.zeros_like(bias)

    def forward(self, tape: Tape, x: Tensor) -> Tensor:
        return self.bias + super().forward(tape, x)

    def backward(self, tape: Tape, d_y: Tensor) -> Tensor:
        self.d_bias += d_y.to(self.bias.dtype).flatten(0, 1).sum(0)
        return super().backward(tape, d_y)


class _Norm:
    """Layer normalisation over the shape of its weight, and its gradients."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias
        self.d_weight, self.d_bias = torch.zeros_like(weight), torch.zeros_like(bias)

    def forward(self, tape: Tape, x: Tensor) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)
        tape += [x, mean, rstd]
        return y

    def backward(self, tape: Tape, d_y: Tensor) -> Tensor:
        rstd, mean, x = (tape.pop() for _ in range(3))
        d_x, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
            d_y, x, self.weight.shape, mean, rstd, self.weight, self.bias, [True, True, True]
        )
        self.d_weight += d_weight
        self.d_bias += d_bias
        return d_x


def _scaled_bmm(a: Tensor, b: Tensor, key_size: int) -> Tensor:
    """a @ b / √k over a batch."""
    return torch.baddbmm(a.new_empty(1), a, b, beta=0, alpha=key_size**-0.5)
