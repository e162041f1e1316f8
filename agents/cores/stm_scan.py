"""The recurrence of the STM's item memory over a sequence, with its backward pass written out.

What a step needs from the relational memory is one vector, the read v^r of equation 11. Reading is linear, and each
step adds to the relational memory what has rank n, so a read is attention over the steps before it:

    v^r_t = read of what the sequence began with + Σ_{τ<t} Σ_j w_tτj v_τj,
    w_tτj = Σ_s address_t[s] λ_s^(t-1-τ) (cue_t · F(q_τs ∘ k_τj))        (or with the roles of F and v exchanged)

The relational memory itself, n * d * d numbers a step, is therefore never formed here. As soon as q, k and v of a step
are known, their share is added to all later reads at once.

The backward pass keeps only the item memory before each step and q, k, v; the rest is computed again from these.

Memories lie such that the axis that linear maps mix is the last one ("turned", see ``STMCore``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .stm_variants import STMVariant


class Rule(NamedTuple):
    """What is the same at every step and takes no gradient."""

    variant: STMVariant
    starts: list[Tensor | None]  # [B, 1, 1] at the steps at which an episode begins
    products: torch.dtype  # of the large matrix products; sums and states keep the dtype of the parameters


class Maps(NamedTuple):
    gate: Tensor | None  # [G, d], where G is 2 d, or d where the gates sum to one; None: there are none
    qkv: Tensor  # [3 n, d]
    qkv_bias: Tensor | None  # [3 n]
    norm: Tensor
    norm_bias: Tensor
    transfer: Tensor  # α3 g G1 [d, n d]
    transfer_bias: Tensor  # [d]


class Inputs(NamedTuple):
    left: Tensor  # [T, B, d]: what is written is left ⊗ right
    right: Tensor  # [T, B, d]
    gates: Tensor | None  # the input's share of the gates [T, B, G]
    cue: Tensor | None  # [T, B, d]; None, as the two that follow: nothing is read
    reads: Tensor | None  # v^r as far as the memory decides it that the episode began with [T, B, d]
    address: Tensor | None  # address_t[s] λ_s^(t-1-τ) [τ, B, t, n]


class Start(NamedTuple):
    item: Tensor  # [B, d, d]
    flow: Tensor | None  # transfer from the relational memory, where that accumulates [B, d, d]
    initial: Tensor | None  # item memory of a new episode [d, d]; None: none begins
    initial_flow: Tensor | None  # transfer at the start of an episode [d, d]


def squash(x: Tensor) -> Tensor:
    """tanh(x) = 2 σ(2x) - 1, on CPUs four times as fast as tanh and as exact to within rounding."""
    return x.tanh() if x.is_cuda else torch.sigmoid(x + x).mul_(2).sub_(1)


def bind(qkv: Tensor) -> Tensor:
    """qkv [N, 3 n, d] -> F(q_s ∘ k_j) [N, n keys, n queries, d]."""
    query, key, _ = qkv.chunk(3, dim=1)
    return squash(key.unsqueeze(2) * query.unsqueeze(1))


def bind_backward(d_bindings: Tensor, bindings: Tensor, qkv: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of q and k, each [N, n, d]; overwrites ``d_bindings``."""
    query, key, _ = qkv.chunk(3, dim=1)
    d_products = torch.ops.aten.tanh_backward.grad_input(d_bindings, bindings, grad_input=d_bindings)
    return (d_products * key.unsqueeze(2)).sum(1), (d_products * query.unsqueeze(1)).sum(2)


class Written(NamedTuple):
    """What a step computes before it attends."""

    candidate: Tensor  # [B, d, d]
    squashed: Tensor | None  # the item memory as the gates see it [B, d, d]
    gates: Tensor | None  # [B, d, G]
    item: Tensor  # the item memory once written to [B, d, d]


class ItemScan(torch.autograd.Function):
    """(rule, *inputs, *start, *maps) -> q, k and v of every step [T, B, 3 n, d], and the item memory after the last."""

    @staticmethod
    def forward(ctx, rule: Rule, *tensors: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        inputs, start, maps = _regroup(tensors)
        cell = _Cell(rule, inputs, maps)
        length, batch, d = inputs.left.shape
        items = inputs.left.new_empty(length + 1, batch, d, d)
        items[0] = start.item
        qkv = inputs.left.new_empty(length, batch, len(maps.qkv), d)
        reads = inputs.left if inputs.reads is None else inputs.reads
        reads = reads.transpose(0, 1).clone(memory_format=torch.contiguous_format)  # [B, T, d]
        flow = start.flow
        for t, starts in enumerate(rule.starts):
            if starts is not None:
                torch.where(starts, start.initial, items[t], out=items[t])
                flow = None if flow is None else torch.where(starts, start.initial_flow, flow)
            written = cell.write(t, items[t])
            qkv[t] = cell.attend(cell.rows(t, written.item, reads[:, t]))
            bindings, values = bind(qkv[t]), cell.values(qkv[t])
            if inputs.address is not None:
                cell.recall(t, bindings, values, reads[:, t + 1 :])
            mixed = cell.mix(bindings)
            if cell.averages:
                fresh = torch.baddbmm(maps.transfer_bias, values.mT, mixed)
                torch.addcmul(written.item, written.gates, fresh, out=items[t + 1])
            elif flow is None:
                torch.baddbmm(written.item, values.mT, mixed, out=items[t + 1])
                items[t + 1] += maps.transfer_bias
            else:
                flow = torch.baddbmm(flow, values.mT, mixed)
                torch.add(written.item, flow, out=items[t + 1])
                items[t + 1] += maps.transfer_bias
        ctx.rule = rule
        ctx.save_for_backward(*tensors, items, reads, qkv)
        return qkv, items[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, d_qkv: Tensor, d_item: Tensor):  # type: ignore[override]
        *tensors, items, reads, qkv = ctx.saved_tensors
        inputs, start, maps = _regroup(tensors)
        rule: Rule = ctx.rule
        cell = _Cell(rule, inputs, maps)
        d_inputs, d_start, d_maps = (type(group)(*map(_zeros_like, group)) for group in (inputs, start, maps))
        d_reads = torch.zeros_like(reads)  # [B, T, d]
        d_flow = d_start.flow
        d_item = d_item.clone()
        for t in reversed(range(len(qkv))):
            # What the forward pass computed, from the item memory before the step and q, k, v.
            written = cell.write(t, items[t])
            rows = cell.rows(t, written.item, reads[:, t])
            bindings, values = bind(qkv[t]), cell.values(qkv[t])
            mixed = cell.mix(bindings)

            # Through the transfer into the item memory.
            d_gates = None
            d_fresh = d_item
            if cell.averages:
                d_gates = torch.baddbmm(maps.transfer_bias, values.mT, mixed).mul_(d_item)
                d_fresh = d_item * written.gates
            d_maps.transfer_bias.add_(d_fresh.sum((0, 1)))
            if d_flow is not None:
                d_fresh = d_flow.add_(d_fresh)
            d_values = torch.bmm(mixed, d_fresh.mT)  # [B, n, d]
            d_bindings = cell.mix_backward(torch.bmm(values, d_fresh), bindings, d_maps)

            # Through the later reads and the attention.
            if inputs.address is not None:
                cell.recall_backward(t, bindings, values, d_reads[:, t + 1 :], d_inputs, d_bindings, d_values)
            d_qkv_t = torch.cat([*bind_backward(d_bindings, bindings, qkv[t]), d_values], dim=1).add_(d_qkv[t])
            d_rows = cell.attend_backward(d_qkv_t, rows, d_maps)
            d_reads[:, t] += cell.rows_backward(t, d_rows, written.item, reads[:, t], d_item, d_inputs, d_maps)

            # Through the write.
            d_item = cell.write_backward(t, items[t], written, d_item, d_gates, d_inputs, d_maps)
            starts = rule.starts[t]
            if starts is not None:
                d_start.initial.add_((d_item * starts).sum(0))
                d_item.masked_fill_(starts, 0)
                if d_flow is not None:
                    d_start.initial_flow.add_((d_flow * starts).sum(0))
                    d_flow.masked_fill_(starts, 0)
        if inputs.reads is not None:
            d_inputs = d_inputs._replace(reads=d_reads.transpose(0, 1))
        return None, *d_inputs, *d_start._replace(item=d_item), *d_maps


def _regroup(tensors: Sequence[Tensor]) -> tuple[Inputs, Start, Maps]:
    a, b = len(Inputs._fields), len(Inputs._fields) + len(Start._fields)
    return Inputs(*tensors[:a]), Start(*tensors[a:b]), Maps(*tensors[b:])


def _zeros_like(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.zeros_like(tensor)


class _Cell:
    """The parts of a step, each followed by its gradient."""

    def __init__(self, rule: Rule, inputs: Inputs, maps: Maps) -> None:
        variant = rule.variant
        self.inputs, self.maps, self.products = inputs, maps, rule.products
        self.gate = None if maps.gate is None else maps.gate.to(rule.products)
        self.transfer = maps.transfer.to(rule.products)
        self.gated, self.sigmoid_gates = variant.gated, variant.sigmoid_gates
        self.squash_write = variant.gated and variant.squash_write
        self.averages = variant.gated and variant.item_update == "average"
        self.read_by_keys = variant.read_axis == "key"
        self.cue_mixes = variant.mix == "columns"
        self.qkv_norm = variant.qkv_norm
        self.n = len(maps.qkv) // 3

    def _product(self, a: Tensor, weight: Tensor) -> Tensor:
        """a [..., K] times weight [K, N], in the dtype of the products; the result in that of the parameters."""
        return torch.matmul(a.to(self.products), weight).to(self.maps.qkv.dtype)

    def values(self, qkv: Tensor) -> Tensor:
        return qkv[:, 2 * self.n :]

    # Equations 9 and 10, with the gates of appendix D: write left ⊗ right.

    def write(self, t: int, item: Tensor) -> Written:
        candidate = self.inputs.left[t].unsqueeze(2) * self.inputs.right[t].unsqueeze(1)  # [B, d, d]
        if self.squash_write:
            candidate = squash(candidate)
        if self.gate is None or self.inputs.gates is None:
            return Written(candidate, None, None, item + candidate)
        squashed = squash(item).to(self.products)
        gates = self._product(squashed, self.gate.T)
        gates += self.inputs.gates[t].unsqueeze(1)  # [B, d, G]
        if self.sigmoid_gates:
            gates.sigmoid_()
        if self.averages:
            return Written(candidate, squashed, gates, torch.lerp(item, candidate, gates))
        take, keep = gates.chunk(2, dim=2)
        return Written(candidate, squashed, gates, (item * keep).addcmul_(take, candidate))

    def write_backward(
        self,
        t: int,
        item: Tensor,
        written: Written,
        d_written: Tensor,
        d_gates: Tensor | None,
        d_inputs: Inputs,
        d_maps: Maps,
    ) -> Tensor:
        """Gradient of the item memory before the step.

        :param d_gates: gradient of the gates from the transfer, where it passes one
        """
        candidate, squashed, gates, _ = written
        if squashed is None or gates is None:
            d_candidate = d_item = d_written
        elif d_gates is not None:
            d_gates.addcmul_(candidate - item, d_written)
            d_candidate = d_written * gates
            d_item = d_written - d_candidate
        else:
            take, keep = gates.chunk(2, dim=2)
            d_gates = torch.cat([d_written * candidate, d_written * item], dim=2)
            d_candidate = d_written * take
            d_item = d_written * keep
        if self.squash_write:
            torch.ops.aten.tanh_backward.grad_input(d_candidate, candidate, grad_input=d_candidate)
        d_inputs.left[t] = torch.bmm(d_candidate, self.inputs.right[t].unsqueeze(2)).squeeze(2)
        d_inputs.right[t] = torch.bmm(self.inputs.left[t].unsqueeze(1), d_candidate).squeeze(1)
        if squashed is None or gates is None or d_gates is None:
            return d_item
        if self.sigmoid_gates:
            torch.ops.aten.sigmoid_backward.grad_input(d_gates, gates, grad_input=d_gates)
        torch.sum(d_gates, 1, out=d_inputs.gates[t])
        d_gates = d_gates.to(self.products)
        d_maps.gate.add_(d_gates.flatten(0, 1).T @ squashed.flatten(0, 1))
        d_squashed = self._product(d_gates, self.gate)
        torch.ops.aten.tanh_backward.grad_input(d_squashed, squashed.to(d_squashed.dtype), grad_input=d_squashed)
        return d_item.add_(d_squashed)

    # Equations 4 to 6: q, k and v are normalised rows of the item memory plus read ⊗ cue (or cue ⊗ read).

    def rows(self, t: int, item: Tensor, read: Tensor) -> Tensor:
        """item [B, d, d], read [B, d] -> [B, d, 3 n]; a map of an outer product is one of its right factor."""
        rows = torch.matmul(item, self.maps.qkv.T)
        if self.inputs.address is not None:
            left, right = self._attended(t, read)
            rows.addcmul_(left.unsqueeze(2), (right @ self.maps.qkv.T).unsqueeze(1))
        return rows if self.maps.qkv_bias is None else rows.add_(self.maps.qkv_bias)

    def rows_backward(
        self, t: int, d_rows: Tensor, item: Tensor, read: Tensor, d_item: Tensor, d_inputs: Inputs, d_maps: Maps
    ) -> Tensor | float:
        """Gradient of the read [B, d]; adds to ``d_item``."""
        flat = d_rows.flatten(0, 1)
        if d_maps.qkv_bias is not None:
            d_maps.qkv_bias.add_(flat.sum(0))
        d_maps.qkv.addmm_(flat.T, item.flatten(0, 1))
        d_item.flatten(0, 1).addmm_(flat, self.maps.qkv)
        if self.inputs.address is None:
            return 0.0
        left, right = self._attended(t, read)
        d_left = torch.bmm(d_rows, (right @ self.maps.qkv.T).unsqueeze(2)).squeeze(2)  # [B, d]
        d_mapped = torch.bmm(left.unsqueeze(1), d_rows).squeeze(1)  # [B, 3 n]
        d_maps.qkv.addmm_(d_mapped.T, right)
        d_right = d_mapped @ self.maps.qkv
        d_read, d_cue = (d_left, d_right) if self.cue_mixes else (d_right, d_left)
        d_inputs.cue[t] += d_cue
        return d_read

    def _attended(self, t: int, read: Tensor) -> tuple[Tensor, Tensor]:
        return (read, self.inputs.cue[t]) if self.cue_mixes else (self.inputs.cue[t], read)

    def attend(self, rows: Tensor) -> Tensor:
        """rows [B, d, 3 n] -> q, k and v [B, 3 n, d]."""
        rows = rows.mT if self.qkv_norm == "items" else rows
        normalised = F.layer_norm(rows, self.maps.norm.shape, self.maps.norm, self.maps.norm_bias)
        return normalised if self.qkv_norm == "items" else normalised.mT

    def attend_backward(self, d_qkv: Tensor, rows: Tensor, d_maps: Maps) -> Tensor:
        items, shape = self.qkv_norm == "items", self.maps.norm.shape
        rows, d_normalised = (rows.mT.contiguous(), d_qkv) if items else (rows, d_qkv.mT.contiguous())
        _, mean, deviation = torch.native_layer_norm(rows, shape, self.maps.norm, self.maps.norm_bias, 1e-5)
        d_rows, d_norm, d_bias = torch.ops.aten.native_layer_norm_backward(
            d_normalised, rows, shape, mean, deviation, self.maps.norm, self.maps.norm_bias, [True, True, True]
        )
        d_maps.norm.add_(d_norm)
        d_maps.norm_bias.add_(d_bias)
        return d_rows.mT.contiguous() if items else d_rows

    # Equation 13: G1(Fᵀ V) = Vᵀ (F G1ᵀ).

    def mix(self, bindings: Tensor) -> Tensor:
        return self._product(bindings.flatten(2), self.transfer.T)  # [B, n, d]

    def mix_backward(self, d_mixed: Tensor, bindings: Tensor, d_maps: Maps) -> Tensor:
        d_mixed = d_mixed.to(self.products)
        d_maps.transfer.add_(d_mixed.flatten(0, 1).T @ bindings.flatten(2).flatten(0, 1).to(self.products))
        return self._product(d_mixed, self.transfer).view_as(bindings)

    # Equation 11: the share of this step in all later reads [B, L, d].

    def recall(self, t: int, bindings: Tensor, values: Tensor, reads: Tensor) -> None:
        cue, address, bindings = self._later(t, bindings)
        if self.read_by_keys:
            matches = torch.bmm(cue, bindings.mT).unflatten(2, (self.n, self.n))  # [B, L, n keys, n queries]
            reads.baddbmm_((matches * address).sum(3), values)
        else:
            matches = torch.bmm(cue, values.mT).unsqueeze(3)  # [B, L, n keys, 1]
            reads.baddbmm_((matches * address).flatten(2), bindings)

    def recall_backward(
        self,
        t: int,
        bindings: Tensor,
        values: Tensor,
        d_reads: Tensor,
        d_inputs: Inputs,
        d_bindings: Tensor,
        d_values: Tensor,
    ) -> None:
        cue, address, bindings = self._later(t, bindings)
        d_bindings = d_bindings.flatten(1, 2)
        if self.read_by_keys:
            matches = torch.bmm(cue, bindings.mT).unflatten(2, (self.n, self.n))
            d_weights = torch.bmm(d_reads, values.mT).unsqueeze(3)  # [B, L, n keys, 1]
            d_values.baddbmm_((matches * address).sum(3).mT, d_reads)
            d_address = (matches * d_weights).sum(2)
            d_matches = (d_weights * address).flatten(2)
            d_cue = torch.bmm(d_matches, bindings)
            d_bindings.baddbmm_(d_matches.mT, cue)
        else:
            matches = torch.bmm(cue, values.mT).unsqueeze(3)
            d_weights = torch.bmm(d_reads, bindings.mT).unflatten(2, (self.n, self.n))
            d_bindings.baddbmm_((matches * address).flatten(2).mT, d_reads)
            d_address = (matches * d_weights).sum(2)
            d_matches = (d_weights * address).sum(3)  # [B, L, n keys]
            d_cue = torch.bmm(d_matches, values)
            d_values.baddbmm_(d_matches.mT, cue)
        assert d_inputs.address is not None
        d_inputs.address[t, :, t + 1 :] = d_address
        d_inputs.cue[t + 1 :] += d_cue.transpose(0, 1)

    def _later(self, t: int, bindings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cues [B, L, d] and addresses [B, L, 1, n] of the steps after t, bindings [B, n keys * n queries, d]."""
        assert self.inputs.address is not None
        cue = self.inputs.cue[t + 1 :].transpose(0, 1)
        return cue, self.inputs.address[t, :, t + 1 :].unsqueeze(2), bindings.flatten(1, 2)
