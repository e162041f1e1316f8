"""The recurrence of the STM's item memory over a sequence, with its backward pass written out.

What a step needs from the relational memory is one vector, the read v^r of equation 11. Reading is linear, and each
step adds to the relational memory what has rank n, so a read is attention over the steps before it:

    v^r_t = read of what the episode began with + Σ_{τ<t} Σ_j w_tτj v_τj,
    w_tτj = Σ_s address_t[s] λ_s^(t-1-τ) (cue_t · F(q_τs ∘ k_τj))        (or with the roles of F and v exchanged)

The relational memory itself, n * d * d numbers a step, is therefore never formed here. As soon as q, k and v of a step
are known, their share is added to all later reads at once.

Of a long sequence or a large batch, the backward pass keeps only the item memory before each step, and computes the
rest again.

Memories lie such that the axis that linear maps mix is the last one ("turned", see ``STMCore.turn``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .base import without_autocast
from .squash import squash
from .stm_variants import STMVariant

KEEP = 2**28  # numbers that a sequence may keep for the backward pass instead of computing them again: 1 GiB


class Rule(NamedTuple):
    """What is the same at every step and takes no gradient."""

    variant: STMVariant
    starts: list[Tensor | None]  # [B, 1, 1] at the steps at which an episode begins
    products: torch.dtype  # of the large matrix products; sums and states keep the dtype of the parameters
    recording: bool  # whether a backward pass may follow
    length: int  # of the whole sequence, of which these steps may be a part


class Operands(NamedTuple):
    """What takes a gradient, and in the backward pass these gradients. G is 2 d, or d where the gates sum to one."""

    # Of each step.
    left: Any  # what is written is left ⊗ right, squashed or not [T, B, d]
    right: Any  # [T, B, d]
    gates: Any  # the input's share of the gates [T, B, G]; None: there are none
    cue: Any  # [T, B, d]; None, as the two that follow, where nothing is read
    reads: Any  # v^r as far as it is read from what the episode began with [T, B, d]
    address: Any  # address_t[s] λ_s^(t-1-τ) [τ, B, t, n]
    # Of the start of the sequence, and of each episode in it; None where none begins.
    item: Any  # [B, d, d]
    flow: Any  # transfer from the relational memory [B, d, d]; None where that does not accumulate
    initial_item: Any  # [d, d]
    initial_flow: Any  # [d, d]
    # Of all steps.
    gate: Any  # [G, d]
    qkv: Any  # [3 n, d]
    qkv_bias: Any  # [3 n], or None
    norm: Any
    norm_bias: Any
    transfer: Any  # α3 G1 [d, n d]
    transfer_bias: Any  # [d]


class Step(NamedTuple):
    """What a step computes."""

    candidate: Tensor  # what is to be written [B, d, d]
    squashed: Any  # the item memory as the gates see it [B, d, d]; None: no gates
    gates: Any  # [B, d, G]; None: no gates
    written: Tensor  # the item memory once written to [B, d, d]
    rows: Tensor  # q, k and v before they are normalised [B, d, 3 n]
    qkv: Tensor  # [B, 3 n, d]
    bindings: Tensor  # F(q_s ∘ k_j) [B, n keys, n queries, d]
    keys: Tensor  # the same in the dtype of the products [B, n keys, n * d]
    mixed: Tensor  # F G1ᵀ [B, n keys, d]


def bind(qkv: Tensor) -> Tensor:
    """qkv [N, 3 n, d] -> F(q_s ∘ k_j) [N, n keys, n queries, d]."""
    query, key, _ = qkv.chunk(3, dim=1)
    return squash(key.unsqueeze(2) * query.unsqueeze(1))


def bind_backward(d_bindings: Tensor, bindings: Tensor, qkv: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of q and k, each [N, n, d]; overwrites ``d_bindings``."""
    query, key, _ = qkv.chunk(3, dim=1)
    d_products = _tanh_backward(d_bindings, bindings)
    return (d_products * key.unsqueeze(2)).sum(1), (d_products * query.unsqueeze(1)).sum(2)


def _tanh_backward(d_y: Tensor, y: Tensor) -> Tensor:
    return torch.ops.aten.tanh_backward.grad_input(d_y, y, grad_input=d_y)


class ItemScan(torch.autograd.Function):
    """(rule, *operands) -> q, k and v of every step [T, B, 3 n, d], and the item memory after the last [B, d, d]."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, *operands: Tensor | None) -> tuple[Tensor, Tensor]:
        p = Operands(*operands)
        cell = Cell(rule, p)
        length, batch, d = p.left.shape
        items = p.left.new_empty(length + 1, batch, d, d)
        items[0] = p.item
        qkv = p.left.new_empty(length, batch, 3 * cell.n, d)
        reads = p.left if p.reads is None else p.reads
        reads = reads.transpose(0, 1).clone(memory_format=torch.contiguous_format)  # [B, T, d]
        flow = p.flow
        steps: list[Step] = []
        keep = rule.recording and rule.length * batch * d * cell.kept_per_row() <= KEEP
        for t, starts in enumerate(rule.starts):
            if starts is not None:
                torch.where(starts, p.initial_item, items[t], out=items[t])
                flow = None if flow is None else torch.where(starts, p.initial_flow, flow)
            step = cell.step(t, items[t], reads[:, t])
            qkv[t] = step.qkv
            values = cell.values(step)
            if p.address is not None:
                cell.recall(t, step, reads[:, t + 1 :])
            if cell.averages:
                fresh = torch.baddbmm(p.transfer_bias, values.mT, step.mixed)
                torch.addcmul(step.written, step.gates, fresh, out=items[t + 1])
            elif flow is None:
                torch.baddbmm(step.written, values.mT, step.mixed, out=items[t + 1])
                items[t + 1] += p.transfer_bias
            else:
                flow = torch.baddbmm(flow, values.mT, step.mixed)
                torch.add(step.written, flow, out=items[t + 1])
                items[t + 1] += p.transfer_bias
            if keep:
                steps.append(step)
        ctx.rule, ctx.steps = rule, steps
        ctx.save_for_backward(*operands, items, reads)
        return qkv, items[-1].clone()

    @staticmethod
    @without_autocast
    @once_differentiable
    def backward(ctx: Any, d_qkv: Tensor, d_item: Tensor) -> tuple[Tensor | None, ...]:
        *operands, items, reads = ctx.saved_tensors
        p = Operands(*operands)
        d = Operands(*(None if operand is None else torch.zeros_like(operand) for operand in p))
        cell = Cell(ctx.rule, p)
        d_reads = torch.zeros_like(reads)  # [B, T, d]
        d_item = d_item.clone(memory_format=torch.contiguous_format)
        for t in reversed(range(len(d_qkv))):
            # Popped, so that its memory is free; where it is gone, or was never kept, it is computed again.
            step = ctx.steps.pop() if t < len(ctx.steps) else cell.step(t, items[t], reads[:, t])
            values = cell.values(step)

            # Through the transfer into the item memory.
            d_gates = None
            d_fresh = d_item
            if cell.averages:
                d_gates = torch.baddbmm(p.transfer_bias, values.mT, step.mixed).mul_(d_item)
                d_fresh = d_item * step.gates
            d.transfer_bias.add_(d_fresh.sum((0, 1)))
            if d.flow is not None:
                d_fresh = d.flow.add_(d_fresh)
            d_values = torch.bmm(step.mixed, d_fresh.mT)  # [B, n, d]
            d_bindings = cell.mix_backward(torch.bmm(values, d_fresh), step, d)

            # Through the later reads and the attention.
            if p.address is not None:
                cell.recall_backward(t, step, d_reads[:, t + 1 :], d_bindings, d_values, d)
            d_qkv_t = torch.cat([*bind_backward(d_bindings, step.bindings, step.qkv), d_values], dim=1).add_(d_qkv[t])
            d_reads[:, t] += cell.attend_backward(t, d_qkv_t, step, reads[:, t], d_item, d)

            # Through the write.
            d_item = cell.write_backward(t, items[t], step, d_item, d_gates, d)
            starts = ctx.rule.starts[t]
            if starts is not None:
                d.initial_item.add_((d_item * starts).sum(0))
                d_item.masked_fill_(starts, 0)
                if d.flow is not None:
                    d.initial_flow.add_((d.flow * starts).sum(0))
                    d.flow.masked_fill_(starts, 0)
        return None, *d._replace(item=d_item, reads=None if p.reads is None else d_reads.transpose(0, 1))


class Cell:
    """The parts of a step, each followed by its gradient. Gradients of what every step shares are added to ``d``."""

    def __init__(self, rule: Rule, p: Operands) -> None:
        self.p, self.products = p, rule.products
        self.gate = None if p.gate is None else p.gate.to(rule.products)
        self.transfer = p.transfer.to(rule.products)
        self.n = len(p.qkv) // 3
        variant = rule.variant
        self.sigmoid_gates = variant.sigmoid_gates
        self.squash_write = variant.gated and variant.squash_write
        self.averages = variant.gated and variant.item_update == "average"
        self.read_by_keys = variant.read_axis == "key"
        self.cue_is_mixed = variant.mix == "columns"
        self.norms_items = variant.qkv_norm == "items"

    def kept_per_row(self) -> int:
        """How many numbers a ``Step`` holds for each of the B * d rows of the item memories."""
        d, gates = self.p.left.shape[2], 0 if self.gate is None else len(self.gate)
        return 3 * d + gates + self.n * (7 + 2 * self.n)  # memories; gates; q, k and v twice, F twice, F G1

    def step(self, t: int, item: Tensor, read: Tensor) -> Step:
        """item [B, d, d], read [B, d]."""
        candidate, squashed, gates, written = self._write(t, item)
        rows = self._rows(t, written, read)
        qkv = self._attend(rows)
        bindings = bind(qkv)
        keys = bindings.flatten(2).to(self.products)
        mixed = torch.matmul(keys, self.transfer.T).to(qkv.dtype)  # equation 13: G1(Fᵀ V) = Vᵀ (F G1ᵀ)
        return Step(candidate, squashed, gates, written, rows, qkv, bindings, keys, mixed)

    def values(self, step: Step) -> Tensor:
        return step.qkv[:, 2 * self.n :]

    # Equations 9 and 10, with the gates of appendix D: write left ⊗ right.

    def _write(self, t: int, item: Tensor) -> tuple[Tensor, Any, Any, Tensor]:
        candidate = self.p.left[t].unsqueeze(2) * self.p.right[t].unsqueeze(1)  # [B, d, d]
        if self.squash_write:
            candidate = squash(candidate)
        if self.gate is None:
            return candidate, None, None, item + candidate
        squashed = squash(item).to(self.products)
        gates = torch.matmul(squashed, self.gate.T).to(item.dtype)
        gates += self.p.gates[t].unsqueeze(1)  # [B, d, G]
        if self.sigmoid_gates:
            gates.sigmoid_()
        if self.averages:
            return candidate, squashed, gates, torch.lerp(item, candidate, gates)
        input_gate, forget_gate = gates.chunk(2, dim=2)
        return candidate, squashed, gates, (item * forget_gate).addcmul_(input_gate, candidate)

    def write_backward(
        self, t: int, item: Tensor, step: Step, d_written: Tensor, d_gates: Tensor | None, d: Operands
    ) -> Tensor:
        """Gradient of the item memory before the step.

        :param d_gates: gradient of the gates from the transfer, where it passes one
        """
        candidate, gates = step.candidate, step.gates
        if self.gate is None:
            d_candidate = d_item = d_written
        elif d_gates is not None:
            d_gates.addcmul_(candidate - item, d_written)
            d_candidate = d_written * gates
            d_item = d_written - d_candidate
        else:
            d_gates = torch.empty_like(gates)
            for source, half in zip((candidate, item), d_gates.chunk(2, dim=2), strict=True):
                torch.mul(d_written, source, out=half)
            input_gate, forget_gate = gates.chunk(2, dim=2)
            d_candidate = d_written * input_gate
            d_item = d_written * forget_gate
        if self.squash_write:
            d_candidate = _tanh_backward(d_candidate, candidate)
        # Vector times matrix: on a CPU, matrix times vector takes several times as long.
        d.left[t] = torch.bmm(self.p.right[t].unsqueeze(1), d_candidate.mT).squeeze(1)
        d.right[t] = torch.bmm(self.p.left[t].unsqueeze(1), d_candidate).squeeze(1)
        if self.gate is None or d_gates is None:
            return d_item
        if self.sigmoid_gates:
            torch.ops.aten.sigmoid_backward.grad_input(d_gates, gates, grad_input=d_gates)
        torch.sum(d_gates, 1, out=d.gates[t])
        d_gates = d_gates.to(self.products)
        d.gate.add_(d_gates.flatten(0, 1).T @ step.squashed.flatten(0, 1))
        d_squashed = torch.matmul(d_gates, self.gate).to(item.dtype)
        return d_item.add_(_tanh_backward(d_squashed, step.squashed.to(item.dtype)))

    # Equations 4 to 6: q, k and v are normalised rows of the item memory plus read ⊗ cue (or cue ⊗ read).

    def _rows(self, t: int, written: Tensor, read: Tensor) -> Tensor:
        """[B, d, 3 n]. The map of an outer product is one of its right factor."""
        rows = torch.matmul(written, self.p.qkv.T)
        if self.p.address is not None:
            left, right = self._attended(t, read)
            rows.addcmul_(left.unsqueeze(2), (right @ self.p.qkv.T).unsqueeze(1))
        return rows if self.p.qkv_bias is None else rows.add_(self.p.qkv_bias)

    def _attended(self, t: int, read: Tensor) -> tuple[Tensor, Tensor]:
        return (read, self.p.cue[t]) if self.cue_is_mixed else (self.p.cue[t], read)

    def _attend(self, rows: Tensor) -> Tensor:
        """rows [B, d, 3 n] -> q, k and v [B, 3 n, d]."""
        rows = rows.mT if self.norms_items else rows
        normalised = F.layer_norm(rows, self.p.norm.shape, self.p.norm, self.p.norm_bias)
        return normalised if self.norms_items else normalised.mT.contiguous()

    def attend_backward(
        self, t: int, d_qkv: Tensor, step: Step, read: Tensor, d_item: Tensor, d: Operands
    ) -> Tensor | float:
        """Gradient of the read [B, d]; adds to ``d_item``."""
        norm, bias, items = self.p.norm, self.p.norm_bias, self.norms_items
        rows, d_normalised = (step.rows.mT.contiguous(), d_qkv) if items else (step.rows, d_qkv.mT.contiguous())
        _, mean, deviation = torch.native_layer_norm(rows, norm.shape, norm, bias, 1e-5)
        d_rows, d_norm, d_bias = torch.ops.aten.native_layer_norm_backward(
            d_normalised, rows, norm.shape, mean, deviation, norm, bias, [True, True, True]
        )
        d.norm.add_(d_norm)
        d.norm_bias.add_(d_bias)
        d_rows = d_rows.mT.contiguous() if items else d_rows
        flat = d_rows.flatten(0, 1)
        if d.qkv_bias is not None:
            d.qkv_bias.add_(flat.sum(0))
        d.qkv.addmm_(flat.T, step.written.flatten(0, 1))
        d_item.flatten(0, 1).addmm_(flat, self.p.qkv)
        if self.p.address is None:
            return 0.0
        left, right = self._attended(t, read)
        d_left = torch.bmm(d_rows, (right @ self.p.qkv.T).unsqueeze(2)).squeeze(2)  # [B, d]
        d_mapped = torch.bmm(left.unsqueeze(1), d_rows).squeeze(1)  # [B, 3 n]
        d.qkv.addmm_(d_mapped.T, right)
        d_right = d_mapped @ self.p.qkv
        d_read, d_cue = (d_left, d_right) if self.cue_is_mixed else (d_right, d_left)
        d.cue[t] += d_cue
        return d_read

    def mix_backward(self, d_mixed: Tensor, step: Step, d: Operands) -> Tensor:
        d_mixed = d_mixed.to(self.products)
        d.transfer.add_(d_mixed.flatten(0, 1).T @ step.keys.flatten(0, 1))
        return torch.matmul(d_mixed, self.transfer).to(step.bindings.dtype).view_as(step.bindings)

    # Equation 11: the share of this step in all later reads [B, L, d].

    def recall(self, t: int, step: Step, reads: Tensor) -> None:
        cue, address, bindings, values = self._later(t, step)
        if self.read_by_keys:
            matches = torch.bmm(cue, bindings.mT).unflatten(2, (self.n, self.n))  # [B, L, n keys, n queries]
            reads += torch.bmm((matches * address).sum(3), values)
        else:
            matches = torch.bmm(cue, values.mT).unsqueeze(3)  # [B, L, n keys, 1]
            reads += torch.bmm((matches * address).flatten(2), bindings)

    def recall_backward(
        self, t: int, step: Step, d_reads: Tensor, d_bindings: Tensor, d_values: Tensor, d: Operands
    ) -> None:
        cue, address, bindings, values = self._later(t, step)
        d_bindings = d_bindings.flatten(1, 2)
        if self.read_by_keys:
            matches = torch.bmm(cue, bindings.mT).unflatten(2, (self.n, self.n))
            d_weights = torch.bmm(d_reads, values.mT).unsqueeze(3)  # [B, L, n keys, 1]
            d_values.baddbmm_((matches * address).sum(3).mT, d_reads)
            d_matches = (d_weights * address).flatten(2)
            d_cue = torch.bmm(d_matches, bindings)
            d_bindings.baddbmm_(d_matches.mT, cue)
        else:
            matches = torch.bmm(cue, values.mT).unsqueeze(3)
            d_weights = torch.bmm(d_reads, bindings.mT).unflatten(2, (self.n, self.n))
            d_bindings.baddbmm_((matches * address).flatten(2).mT, d_reads)
            d_matches = (d_weights * address).sum(3)  # [B, L, n keys]
            d_cue = torch.bmm(d_matches, values)
            d_values.baddbmm_(d_matches.mT, cue)
        d.address[t, :, t + 1 :] = (matches * d_weights).sum(2)
        d.cue[t + 1 :] += d_cue.transpose(0, 1)

    def _later(self, t: int, step: Step) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cues [B, L, d] and addresses [B, L, 1, n] of the steps after t; bindings [B, n keys * n queries, d] and
        values [B, n, d] of this step."""
        cue, address = self.p.cue[t + 1 :].transpose(0, 1), self.p.address[t, :, t + 1 :].unsqueeze(2)
        return cue, address, step.bindings.flatten(1, 2), self.values(step)
