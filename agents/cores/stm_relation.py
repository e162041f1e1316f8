"""The STM's relational memory over a sequence, formed only where it is read, in blocks.

A step adds the matrices Σ_j F(q_s ∘ k_j) ⊗ v_j (equation 8), one for each query s, and fades what was there before:

    M_t[s] = λ_s^age_t M_origin[s] + g_s Σ_τ λ_s^(t-τ) Σ_j F(q_τs ∘ k_τj) ⊗ v_τj,

where τ runs over the steps of the same episode up to t, and the origin is the memory that the sequence or the episode
began with. Any M_t is thus one matrix product over (τ, j). What a linear map reads from M_t fades in the same way, so
it is read from what each step adds, and summed up afterwards. Backward passes compute F again instead of keeping it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .base import without_autocast
from .stm_scan import bind, bind_backward

BLOCK = 2**22  # numbers in the matrices that exist at the same time


class Fading(NamedTuple):
    """How much is left of what came earlier."""

    between: Tensor  # λ_s^(t-τ) where τ <= t is of the same episode, else 0: [t, τ, B, n]
    origin: Tensor  # λ_s^age_t [T, B, n]
    episode: Tensor  # number of the step's episode in the sequence, from 0: [T, B]

    @classmethod
    def of(cls, fade: Tensor, starts: Tensor, before: bool = False) -> Fading:
        """
        :param fade: λ [n]
        :param starts: whether an episode begins at a step [T, B]
        :param before: what is left before step t writes, instead of after it
        """
        step = torch.arange(len(starts), device=starts.device)
        episode = starts.cumsum(0)  # [T, B]
        lag = step.unsqueeze(1) - step - int(before)  # [t, τ]
        counts = (lag >= 0).unsqueeze(2) & (episode.unsqueeze(1) == episode)  # [t, τ, B]
        powers = fade ** lag.clamp(min=0).unsqueeze(2)  # [t, τ, n]
        first = torch.where(starts, step.unsqueeze(1), 0).cummax(0).values  # [T, B]
        age = step.unsqueeze(1) - first + int(not before)
        return cls(powers.unsqueeze(2) * counts.unsqueeze(3), fade ** age.unsqueeze(2), episode)

    def add_up(self, fresh: Tensor, since: int, before: Tensor, initial: Tensor | None) -> Tensor:
        """What is read from M after each step from ``since`` on [U, B, n, r].

        :param fresh: what is read from what each of these steps adds [U, B, n, r]
        :param before: what is read from M before them [B, n, r], or [n, r]
        :param initial: what is read from the initial memory of an episode [n, r]; None: no episode begins
        """
        between = self.between[since:, since:].permute(2, 3, 0, 1)  # [B, n, t, τ]
        added = torch.matmul(between, fresh.permute(1, 2, 0, 3)).permute(2, 0, 1, 3)  # [U, B, n, r]
        episode, origin = self.episode[since:].unsqueeze(2), self.origin[since:]
        if since:
            first, left = self.episode[since - 1].unsqueeze(1), self.between[since:, since - 1]
        else:
            first, left = torch.zeros_like(episode[0]), origin
        features = torch.addcmul(added, left.unsqueeze(3), before)
        if initial is None:
            return features
        return torch.where((episode > first).unsqueeze(3), torch.addcmul(added, origin.unsqueeze(3), initial), features)


class ReadFresh(torch.autograd.Function):
    """(qkv [N, 3 n, d], G2 [r, d * d], dtype of the products) -> what G2 reads from the N fresh matrices [N, n, r]."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, weight: Tensor, products: torch.dtype) -> Tensor:
        ctx.save_for_backward(qkv, weight)
        ctx.products = products
        transposed = weight.to(products).T  # [d * d, r]
        blocks, matrices = _blocks(qkv, products)
        features = []
        for block in blocks:
            m = torch.bmm(
                bind(block).flatten(2).to(products).mT, _values(block).to(products), out=matrices[: len(block)]
            )
            features.append(torch.mm(m.view(-1, len(transposed)), transposed).to(qkv.dtype))  # [K * n, r]
        return torch.cat(features).view(len(qkv), -1, len(weight))

    @staticmethod
    @without_autocast
    @once_differentiable
    def backward(ctx: Any, d_features: Tensor) -> tuple[Tensor, Tensor, None]:
        qkv, weight = ctx.saved_tensors
        d_qkv, d_weight = [], torch.zeros_like(weight)
        cast = weight.to(ctx.products)
        blocks, buffer = _blocks(qkv, ctx.products)
        for block, d_block in zip(blocks, d_features.to(ctx.products).split(len(buffer)), strict=True):
            bindings, values = bind(block), _values(block).to(ctx.products)
            keys = bindings.flatten(2).to(ctx.products)  # [K, n keys, n * d]
            matrices = torch.bmm(keys.mT, values, out=buffer[: len(block)])  # [K, n * d, d]
            d_block = d_block.flatten(0, 1)  # [K * n, r]
            d_weight.add_(d_block.T @ matrices.view(len(d_block), -1))
            d_matrices = torch.mm(d_block, cast, out=matrices.view(len(d_block), -1)).view_as(matrices)
            d_bindings = torch.bmm(values, d_matrices.mT).to(qkv.dtype).view_as(bindings)
            d_values = torch.bmm(keys, d_matrices).to(qkv.dtype)
            d_qkv.append(torch.cat([*bind_backward(d_bindings, bindings, block), d_values], dim=1))
        return torch.cat(d_qkv), d_weight, None


class Remember(torch.autograd.Function):
    """(qkv [T, B, 3 n, d], w [T, B, n], M [B, n, d, d] or [n, d, d], w' [B, n]) ->
    w' M + Σ_t w_t[s] Σ_j F(q_ts ∘ k_tj) ⊗ v_tj [B, n, d, d]."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, weights: Tensor, origin: Tensor, left: Tensor) -> Tensor:
        ctx.save_for_backward(qkv, weights, origin, left)
        memories = []
        for block, w in _rows(qkv, weights):
            weighted = bind(block).mul_(w.reshape(-1, 1, w.shape[2], 1))  # [b * T, n keys, n, d]
            memories.append(torch.bmm(_sequence(weighted, len(w)).mT, _sequence(_values(block), len(w))))
        return torch.cat(memories).unflatten(1, origin.shape[-3:-1]).addcmul_(left.unsqueeze(2).unsqueeze(3), origin)

    @staticmethod
    @without_autocast
    @once_differentiable
    def backward(ctx: Any, d_memory: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        qkv, weights, origin, left = ctx.saved_tensors
        d_qkv, d_weights = torch.empty_like(qkv), torch.empty_like(weights)
        rows = 0
        for block, w in _rows(qkv, weights):
            d_matrix = d_memory[rows : rows + len(w)].flatten(1, 2)  # [b, n * d, d]
            bindings, per_query = bind(block), w.reshape(-1, 1, w.shape[2], 1)
            d_values = torch.bmm(_sequence(bindings * per_query, len(w)), d_matrix)
            d_weighted = torch.bmm(_sequence(_values(block), len(w)), d_matrix.mT).view_as(bindings)
            d_w = (d_weighted * bindings).sum((1, 3))  # [b * T, n]
            d_query, d_key = bind_backward(d_weighted.mul_(per_query), bindings, block)
            d_block = torch.cat([d_query, d_key, d_values.view_as(d_query)], dim=1)
            d_qkv[:, rows : rows + len(w)] = d_block.unflatten(0, w.shape[:2]).transpose(0, 1)
            d_weights[:, rows : rows + len(w)] = d_w.unflatten(0, w.shape[:2]).transpose(0, 1)
            rows += len(w)
        d_origin = d_memory * left.unsqueeze(2).unsqueeze(3)
        d_left = (d_memory * origin).sum((2, 3))
        return d_qkv, d_weights, d_origin if origin.dim() == 4 else d_origin.sum(0), d_left


def recall(address: Tensor, cue: Tensor, relation: Tensor, axis: str) -> Tensor:
    """Equation 11: address [T, B, n], cue [T, B, d], relation [B, n, d, d] or [n, d, d] -> what is read by this axis
    [T, B, d]."""
    if axis == "key":
        addressed = (address.unsqueeze(3) * cue.unsqueeze(2)).flatten(2)  # [T, B, n * d]
        if relation.dim() == 3:
            return addressed @ relation.flatten(0, 1)
        return torch.bmm(addressed.transpose(0, 1), relation.flatten(1, 2)).transpose(0, 1)
    rows = relation.flatten(-3, -2).expand(len(cue[0]), -1, -1)  # [B, n * d, d]
    matched = torch.bmm(rows, cue.permute(1, 2, 0)).unflatten(1, relation.shape[-3:-1])  # [B, n, d, T]
    return (matched * address.permute(1, 2, 0).unsqueeze(2)).sum(1).permute(2, 0, 1)


def _blocks(qkv: Tensor, products: torch.dtype) -> tuple[tuple[Tensor, ...], Tensor]:
    """qkv [N, 3 n, d] in blocks of K, and room for the matrices of a block [K, n * d, d]."""
    n, d = qkv.shape[1] // 3, qkv.shape[2]
    size = min(len(qkv), max(1, BLOCK // (n * d * d)))
    return qkv.split(size), qkv.new_empty(size, n * d, d, dtype=products)


def _values(qkv: Tensor) -> Tensor:
    return qkv[:, 2 * qkv.shape[1] // 3 :]


def _sequence(steps: Tensor, batch: int) -> Tensor:
    """[b * T, n keys, ...] -> [b, T * n keys, width]: keys of all steps, as one memory holds them."""
    return steps.reshape(batch, -1, steps[0, 0].numel())


def _rows(qkv: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of whole sequences: qkv [b * T, 3 n, d] and weights [b, T, n]."""
    n, d = weights.shape[2], qkv.shape[3]
    size = max(1, BLOCK // (len(qkv) * n * n * d))
    for block, w in zip(qkv.split(size, dim=1), weights.split(size, dim=1), strict=True):
        yield block.transpose(0, 1).flatten(0, 1), w.transpose(0, 1)
