"""Transformers with a memory between segments: RMT (Bulatov et al. 2022, "Recurrent Memory Transformer") and ARMT
(Rodkin et al. 2024, "Associative Recurrent Memory Transformer").

https://arxiv.org/abs/2207.06881, https://arxiv.org/abs/2407.04841
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .attention import attend
from .core import MemoryCore, full_precision, head_width, output_map
from .registry import register_core

EPSILON = 1e-5  # of the divisions of ARMT, as in its authors' code


class RMTState(NamedTuple):
    memory: Tensor  # [B, m, D], the memory tokens that the segment began with
    context: Tensor  # [B, L, m + k, D], what each layer has read: memory tokens, and steps of the segment so far
    length: Tensor  # [B, 1], how many steps these are


class ARMTState(NamedTuple):
    association: Tensor  # [B, L, K, D], A of each layer
    normaliser: Tensor  # [B, L, K], z of each layer
    context: Tensor  # [B, L, k, D], what each layer has read of the segment so far
    length: Tensor  # [B, 1], how many steps these are


class SegmentCore(MemoryCore):
    """A causal transformer over segments of k steps, between which something else is carried.

    The state holds what the layers have read of a segment so far, so that a step is one more token. Several tokens are
    a ``piece``, as long as they belong to one segment of one episode.

    :param state: class of the state, with ``context`` and ``length`` among its leaves
    :param shapes: of the leaves before these two
    :param before: tokens that stand before a segment
    :param hidden_size: width D of the transformer
    :param heads: number of attention heads, a divisor of ``hidden_size``
    :param layers: number L of layers of the transformer
    :param segment: number k of steps of a segment
    :raises ValueError: if ``heads`` does not divide ``hidden_size``
    """

    def __init__(
        self, input_size: int, output_size: int | None, state: Any, shapes: tuple[tuple[int, ...], ...], before: int,
        hidden_size: int, heads: int, layers: int, segment: int,
    ) -> None:  # fmt: skip
        head_width(hidden_size, heads)
        shapes = (*shapes, (layers, before + segment, hidden_size), (1,))
        super().__init__(input_size, hidden_size if output_size is None else output_size, state, shapes)
        self.before, self.segment = before, segment
        self.embedding = nn.Linear(input_size, hidden_size)
        self.places = nn.Parameter(0.1 * torch.randn(segment, hidden_size))
        self.layers = nn.ModuleList(TransformerLayer(hidden_size, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.out = output_map(hidden_size, output_size)

    def _recall(self, layer: int, h: Tensor, state: Any) -> Tensor:
        """What a layer is given in place of its input h [B, P, D]."""
        return h

    def _close(self, state: Any) -> Any:
        """The state with which the next segment begins, of one whose segment is complete."""
        raise NotImplementedError

    @full_precision
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self._advance(self.embedding(x).unsqueeze(1), torch.ones_like(state.length[:, 0]).long(), state)
        return self.out(y.squeeze(1)), self._close_complete(state)

    def sequence(self, x: Tensor, state: Any, starts: Tensor, since: int) -> tuple[Tensor, Any]:
        """The first piece of every row at once, then the second, and so on."""
        h, starts = self.embedding(x).transpose(0, 1), starts.T  # [B, T, D], [B, T]
        piece = self._pieces(self._count(self.reset(state, starts[:, 0])), starts)
        y = torch.zeros_like(h)
        for number in range(int(piece.max()) + 1):
            inside = piece == number  # [B, T]
            lengths, first = inside.sum(1), inside.int().argmax(1, keepdim=True)  # [B], [B, 1]
            offset = torch.arange(int(lengths.max()), device=x.device)
            steps = (first + offset).clamp(max=len(x) - 1).unsqueeze(2)  # [B, P, 1]
            state = self.reset(state, starts.gather(1, first)[:, 0] & (lengths > 0))
            outputs, state = self._advance(h.gather(1, steps.expand(-1, -1, h.shape[2])), lengths, state)
            y[inside] = outputs[offset < lengths.unsqueeze(1)]
            state = self._close_complete(state)
        return self.out(y.transpose(0, 1)[since:]), state

    def _close_complete(self, state: Any) -> Any:
        """Begin the next segment where one is complete. On a CPU only these rows are computed; elsewhere all are, since
        to ask which ones are complete would take longer."""
        complete = state.length[:, 0] == self.segment  # [B]
        if not state.length.is_cpu or torch.compiler.is_compiling():
            leaves = zip(self._close(state), state, strict=True)
            chosen = (torch.where(complete.view(-1, *[1] * (old.dim() - 1)), new, old) for new, old in leaves)
            return type(state)(*chosen)
        rows = complete.nonzero()[:, 0]
        if not len(rows):
            return state
        closed = self._close(type(state)(*(leaf[rows] for leaf in state)))
        return type(state)(*(old.index_copy(0, rows, new) for old, new in zip(state, closed, strict=True)))

    def _pieces(self, count: Tensor, starts: Tensor) -> Tensor:
        """In which of its row's pieces each step is: steps of the segment under way [B, 1], starts [B, T] -> [B, T]."""
        step = torch.arange(starts.shape[1], device=starts.device)
        age = step - torch.where(starts, step, -count).cummax(1).values  # of the episode, or since the segment began
        begins = age % self.segment == 0
        begins[:, 0] = True
        return begins.cumsum(1) - 1

    def _count(self, state: Any) -> Tensor:
        """Steps of the segment so far, from 0 to k - 1, whatever the state holds: [B, 1]."""
        return state.length.round().nan_to_num(0.0).clamp(0, self.segment - 1).long()

    def _advance(self, h: Tensor, lengths: Tensor, state: Any) -> tuple[Tensor, Any]:
        """A piece: embedded inputs [B, P, D], of which so many count [B] -> outputs [B, P, D], and the state."""
        _, steps, width = h.shape
        count, offset = self._count(state), torch.arange(steps, device=h.device)
        h = h + F.embedding((count + offset).clamp(max=self.segment - 1), self.places)
        h = torch.where((offset < lengths.unsqueeze(1)).unsqueeze(2), h, 0)
        rows = torch.arange(self.before + self.segment, device=h.device) - self.before - count  # [B, S]: 0 comes first
        seen = torch.cat([(rows < 0).unsqueeze(1).expand(-1, steps, -1), causal(h)], dim=2)  # [B, P, S + P]
        added = ((rows >= 0) & (rows < lengths.unsqueeze(1))).unsqueeze(2)  # [B, S, 1]
        source = rows.clamp(0, steps - 1).unsqueeze(2).expand(-1, -1, width)
        contexts = []
        for number, layer in enumerate(self.layers):
            context = state.context[:, number]  # [B, S, D]
            h = self._recall(number, h, state)
            contexts.append(torch.where(added, h.gather(1, source), context))
            h = layer(h, torch.cat([context, h], dim=1), seen)
        length = (count + lengths.unsqueeze(1)).to(h.dtype)
        return self.norm(h), state._replace(context=torch.stack(contexts, dim=1), length=length)


@register_core("rmt")
class RMTCore(SegmentCore):
    """A transformer whose segments of k steps begin with m memory tokens, and end with them once more: what it makes of
    these last ones, which see the whole segment, are the memory tokens of the next segment:

        [read; h; write] = transformer([memory; x_1 … x_k; memory]),    memory ← write

    Attention is causal, positions are learned, and memory tokens start as learned. A last normalisation, as in GPT-2,
    keeps them bounded.

    Good at exact recall within a segment and at carrying a few things from one to the next. What an episode's memory
    has not taken over by the end of a segment is lost, so cues that look unimportant at the time are hard; gradients
    must be cut no more often than every few segments (``bptt_length``).

    The output is that of the last layer, followed by a linear map where ``output_size`` is given.

    :param hidden_size: D, of the transformer and the memory tokens; the natural output width
    :param heads: number of attention heads, a divisor of ``hidden_size``
    :param layers: number L of layers of the transformer; they share the memory tokens
    :param segment: number k of steps of a segment
    :param tokens: number m of memory tokens
    :raises ValueError: if a size is not a positive integer, or ``heads`` does not divide ``hidden_size``
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 96,
        heads: Count = 4,
        layers: Count = 2,
        segment: Count = 32,
        tokens: Count = 4,
    ) -> None:
        require_options(RMTCore, locals())
        shapes = ((tokens, hidden_size),)
        super().__init__(input_size, output_size, RMTState, shapes, tokens, hidden_size, heads, layers, segment)
        self.memory = nn.Parameter(torch.randn(tokens, hidden_size))
        self.read_places = nn.Parameter(0.1 * torch.randn(tokens, hidden_size))
        self.write_places = nn.Parameter(0.1 * torch.randn(tokens, hidden_size))

    def initial_state(self, batch_size: int) -> RMTState:
        """The state before an episode: the learned memory tokens, and what the layers make of them."""
        return RMTState(*(leaf.expand(batch_size, *leaf.shape[1:]) for leaf in self._open(self.memory.unsqueeze(0))))

    def _open(self, memory: Tensor) -> RMTState:
        """The state at the beginning of a segment with these memory tokens [B, m, D]."""
        h, contexts = memory + self.read_places, []
        for layer in self.layers:
            contexts.append(F.pad(h, (0, 0, 0, self.segment)))  # [B, m + k, D]
            h = layer(h, h, causal(h))
        return RMTState(memory, torch.stack(contexts, dim=1), torch.zeros_like(memory[:, 0, :1]))

    def _close(self, state: RMTState) -> RMTState:
        h = state.memory + self.write_places
        for layer, context in zip(self.layers, state.context.unbind(1), strict=True):
            h = layer(h, torch.cat([context, h], dim=1), after_all(context, h))
        return self._open(self.norm(h))


@register_core("armt")
class ARMTCore(SegmentCore):
    """A transformer over segments of k steps, in which each layer has an associative memory A, read by every token and
    written by m learned memory tokens at the end of a segment:

        h ← h + Aᵀφ(W_q h) / (z · φ(W_q h))           before a layer, of every token h
        [h; w] ← layer([h; w])
        v̄ = Aᵀφ(k) / (z · φ(k)),   k = W_k w          at the end of a segment, after this layer, of each memory token w
        A ← A + Σ σ(W_β w) φ(k) (W_v w - v̄)ᵀ
        z ← z + Σ γ φ(k),   γ = 1 - z · φ(k) / |φ(k)|²

    φ is the DPFP of Schlag et al. (2021, arXiv 2102.11174) with ν = 3. As in the authors' code, γ is kept between 0
    and 1, and 1e-5 is added to what is divided by; they also keep gradients from passing through γ, which here they do.

    Good at more associations than memory tokens can hold, and at overwriting them; else as ``rmt``.

    The output is that of the last layer, followed by a linear map where ``output_size`` is given.

    :param hidden_size: D, of the transformer and the memory tokens; the natural output width
    :param heads: number of attention heads, a divisor of ``hidden_size``
    :param layers: number L of layers of the transformer, each with an associative memory of its own
    :param segment: number k of steps of a segment
    :param tokens: number m of memory tokens
    :param key_size: width of W_q h and W_k w; φ makes six times as many numbers of them, the rows K of A
    :raises ValueError: if a size is not a positive integer, or ``heads`` does not divide ``hidden_size``
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 96,
        heads: Count = 4,
        layers: Count = 2,
        segment: Count = 32,
        tokens: Count = 4,
        key_size: Count = 16,
    ) -> None:
        require_options(ARMTCore, locals())
        rows = 6 * key_size
        shapes = ((layers, rows, hidden_size), (layers, rows))
        super().__init__(input_size, output_size, ARMTState, shapes, 0, hidden_size, heads, layers, segment)
        self.memory = nn.Parameter(torch.randn(tokens, hidden_size))
        self.associations = nn.ModuleList(Association(hidden_size, key_size) for _ in range(layers))

    def _recall(self, layer: int, h: Tensor, state: ARMTState) -> Tensor:
        memory = self._association(layer)
        return h + memory.read(dpfp(memory.query(h)), state.association[:, layer], state.normaliser[:, layer])

    def _association(self, layer: int) -> Association:
        return cast(Association, self.associations[layer])

    def _close(self, state: ARMTState) -> ARMTState:
        h = self.memory.expand(state.length.shape[0], -1, -1)  # [B, m, D]
        memories = []
        for number, (layer, context) in enumerate(zip(self.layers, state.context.unbind(1), strict=True)):
            h = self._recall(number, h, state)
            h = layer(h, torch.cat([context, h], dim=1), after_all(context, h))
            of_layer = state.association[:, number], state.normaliser[:, number]
            memories.append(self._association(number).write(h, *of_layer))
        association, normaliser = (torch.stack(leaves, dim=1) for leaves in zip(*memories, strict=True))
        return ARMTState(association, normaliser, torch.zeros_like(state.context), torch.zeros_like(state.length))


class TransformerLayer(nn.Module):
    """h + attention, then h + MLP, each of what is normalised, as in GPT-2."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.merge = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, rows: Tensor, seen: Tensor) -> Tensor:
        """Tokens [B, T, D], rows that they attend to [B, S, D], and which of these they see [B, T, S]."""
        query = self.query(self.norm(h)).unflatten(2, (self.heads, -1))  # [B, T, H, d]
        h = h + self.merge(attend(query, self.key, self.value, self.norm(rows), seen))
        return h + self.mlp(self.mlp_norm(h))


class Association(nn.Module):
    """What reads and writes the associative memory of one layer: A [B, K, D] and z [B, K]."""

    def __init__(self, width: int, key_size: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, key_size, bias=False), nn.Linear(width, key_size, bias=False)
        self.value, self.strength = nn.Linear(width, width, bias=False), nn.Linear(width, 1)

    def read(self, key: Tensor, association: Tensor, normaliser: Tensor) -> Tensor:
        """What is found by keys φ [B, T, K]: [B, T, D]; nothing where nothing was written."""
        return torch.bmm(key, association) / (torch.bmm(key, normaliser.unsqueeze(2)) + EPSILON)

    def write(self, tokens: Tensor, association: Tensor, normaliser: Tensor) -> tuple[Tensor, Tensor]:
        """Memory tokens [B, m, D] -> the next A and z."""
        key = dpfp(self.key(tokens))  # [B, m, K]
        change = self.value(tokens) - self.read(key, association, normaliser)  # [B, m, D]
        known = torch.bmm(key, normaliser.unsqueeze(2)) / (key.square().sum(2, keepdim=True) + EPSILON)  # [B, m, 1]
        new = (1 - known).clamp(0, 1)  # γ
        association = torch.baddbmm(association, (torch.sigmoid(self.strength(tokens)) * key).mT, change)
        return association, normaliser + (new * key).sum(1)


def dpfp(x: Tensor, shifts: int = 3) -> Tensor:
    """Deterministic parameter-free projection: [..., d] -> products of neighbours [..., 2 * d * shifts]."""
    x = torch.cat([x, -x], dim=-1).relu()
    return torch.cat([x * x.roll(shift, dims=-1) for shift in range(1, shifts + 1)], dim=-1)


def causal(h: Tensor) -> Tensor:
    """Each token sees itself and those before it: h [B, T, D] -> bool [B, T, T]."""
    return torch.ones(h.shape[1], h.shape[1], dtype=torch.bool, device=h.device).tril().expand(h.shape[0], -1, -1)


def after_all(rows: Tensor, h: Tensor) -> Tensor:
    """Each token sees all rows [B, S, D], and of the tokens [B, T, D] what ``causal`` lets it: bool [B, T, S + T]."""
    return F.pad(causal(h), (rows.shape[1], 0), value=True)
