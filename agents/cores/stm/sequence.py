"""The STM over a whole sequence: the numbers of ``STMCore.step``, in an order that needs less work and memory.

What a step adds to the relational memory has rank n: SAM(M)[s] = F_sᵀ V, where F_s [n keys, d] are the bindings of
query s and V [n keys, d] the values. Whatever is linear in the relational memory can therefore be done on these
factors, and the memory itself, n * d * d numbers a step, is hardly ever formed:

* Transfer (13): G1(SAM) = Vᵀ (F G1ᵀ), where F G1ᵀ is [n keys, d].
* Read (11): as soon as F and V of a step are known, what all later steps of the chunk will read from them is added to
  their reads, as in linear attention: Σ_s address_t[s] λ_s^(t-1-τ) (cue_t · F_τ[s, j]) summed over keys j, with v_τj.
* Read-out (14): G2 is linear and nothing of it flows back, so it reads the fresh relations of the whole sequence at
  once, block by block, and what it reads fades and adds up as the memory would: a linear scan.
* The memory is formed where a chunk ends, by one product over all its steps.

What the input alone decides is projected for all steps at once. The loop over steps that remains is the recurrence of
the item memory. Where a sequence would keep too much for the backward pass, segments and blocks of it are computed
again (``torch.utils.checkpoint``).
In this file, item memories lie such that the axis that linear maps mix is the last one (``STMCore.mixed_last``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..scan import linear_scan
from ..squash import squash

if TYPE_CHECKING:
    from .core import STMCore

CHUNK = 64  # steps within which the relational memory is read as attention over earlier steps
KEEP = 2**26  # numbers that the loop may keep for the backward pass; longer loops are computed again, in segments
BLOCK = 2**22  # numbers in the relational matrices that exist at the same time


class Carry(NamedTuple):
    """What goes from step to step within a chunk."""

    item: Tensor  # M^i [B, d, d]
    flow: Tensor | None  # α3 G1(M^r) [B, d, d], where the transfer is from the accumulated memory
    reads: Tensor | None  # v^r of all steps of the chunk, as far as it is known [B, T, d]; None: nothing is read


def has_fast_path(core: STMCore) -> bool:
    """Whether there is one: what an accumulated memory transfers is one matrix only if all queries fade alike."""
    return core.variant.transfer_from == "fresh" or core.variant.relation_update != "decay"


def run(core: STMCore, x: Tensor, state: Any, starts: Tensor, since: int, products: torch.dtype) -> tuple[Tensor, Any]:
    """
    :param x: inputs [T, B, F]
    :param starts: whether an episode begins at a step, bool [T, B]
    :param since: first step whose features are needed
    :param products: dtype of the large matrix products
    :return: features G2(M^r) [T - since, B, n, r], and the state after the last step
    """
    features = []
    for begin in range(0, len(x), CHUNK):
        chunk = slice(begin, begin + CHUNK)
        read, state = Chunk(core, x[chunk], state, starts[chunk], products).run(max(0, since - begin))
        features += read
    return torch.cat(features), state


class Chunk:
    """A stretch of a sequence. Memories that are the same for all rows, as initial ones are, lack the batch dimension.

    :param state: the memories before it
    """

    def __init__(self, core: STMCore, x: Tensor, state: Any, starts: Tensor, products: torch.dtype) -> None:
        self.core, self.variant, self.products = core, core.variant, products
        self.begins = starts.any(dim=1).tolist()
        initial = type(state)(*(leaf[0] for leaf in core.initial_state(1))) if any(self.begins) else None
        if initial is not None and self.begins[0]:
            state = initial if starts[0].all() else core.reset(state, starts[0])
            starts, self.begins[0] = torch.cat([torch.zeros_like(starts[:1]), starts[1:]]), False
        self.initial: Any = initial if any(self.begins) else None
        self.state, self.starts = state, starts
        self.fade, self.gain = (rate.expand(core.f3.out_features, 1).squeeze(1) for rate in core.rates())  # λ, g: [n]

        self._shape = core.f3.out_features, core.f1.out_features, core.f1.out_features  # n, d, d: of M^r
        write = core.project(x)
        left, right = write.factors if self.variant.mix == "columns" else write.factors[::-1]
        self.left, self.right, self.cue = left.unbind(), right.unbind(), write.cue  # of each step [B, d]
        if self.variant.gated:
            self.gate: Tensor = core.gate_memory.weight  # [2 * d, d]
            gates = write.gates  # [T, B, 2 * d]
            if core.gate_memory.bias is not None:
                gates = gates + core.gate_memory.bias
            if self.variant.averages:  # gates that sum to one depend on the difference of their logits
                self.gate = torch.sub(*self.gate.chunk(2))  # [d, d]
                gates = torch.sub(*gates.chunk(2, dim=2))
            self.gates = gates.unsqueeze(2).unbind()
        self.transfer, self.transfer_bias = core.alpha3 * core.transfer.weight, core.alpha3 * core.transfer.bias
        self.origin_reads: Tensor | None = None
        self.accumulates = self.variant.carries_relation and self.variant.transfer_from == "accumulated"
        if self.variant.carries_relation:
            self._prepare_reads(core.alpha2 * write.address)

    def _prepare_reads(self, address: Tensor) -> None:
        """What each step will read from the memory that its episode or the chunk began with, and the weights of what it
        will read from the steps before it; address: α2 softmax(f3(x)) [T, B, n]."""
        step = torch.arange(len(address), device=address.device)
        first = torch.where(self.starts, step.unsqueeze(1), 0).cummax(0).values  # of the episode [T, B]
        self.age, self.episode = step.unsqueeze(1) - first, self.starts.cumsum(0)  # [T, B]
        faded = address * self.fade ** self.age.unsqueeze(2)
        self.origin_reads = self.core.read_relation(faded, self.cue, self.state.relation).transpose(0, 1)  # [B, T, d]
        if self.initial is not None:
            self.initial_reads = self.core.read_relation(faded, self.cue, self.initial.relation).transpose(0, 1)
        lag = step - step.unsqueeze(1) - 1  # [τ, t]
        weights = torch.where(lag.unsqueeze(2) >= 0, self.gain * self.fade ** lag.clamp(min=0).unsqueeze(2), 0)
        self.later = torch.einsum("utn,tbn->ubnt", weights, address).unsqueeze(2).unbind()  # of step τ [B, 1, n, t]
        self.cues = self.cue.permute(1, 2, 0)  # [B, d, T]
        # The map of an outer product is one of its right factor.
        self.mapped_cue = F.linear(self.cue, self.core.qkv.weight).unbind() if self.variant.mix == "columns" else ()

    def run(self, since: int) -> tuple[list[Tensor], Any]:
        """Features G2(M^r) of the steps from ``since`` on, as a list of none or one [T - since, B, n, r], and the state
        after the last step."""
        core, length = self.core, len(self.left)
        bindings, values, item = self._loop()
        item = core.mixed_last(item)
        if not self.variant.carries_relation:
            return [self._read_fresh(bindings, values, since)] if since < length else [], type(self.state)(item)
        last = self._relation_after(length - 1, bindings, values)
        if since >= length - 1:
            features = [core.read_features(last).unsqueeze(0)] if since == length - 1 else []
            return features, type(self.state)(item, last)
        begin = self._relation_after(since - 1, bindings, values) if since else self.state.relation
        initial = None if self.initial is None else core.read_features(self.initial.relation)
        fresh = self.gain.unsqueeze(1) * self._read_fresh(bindings, values, since)  # [T - since, B, n, r]
        before, fade = core.read_features(begin), self.fade.unsqueeze(1)
        return [linear_scan(fade, fresh, before, self.starts[since:], initial)], type(self.state)(item, last)

    def _loop(self) -> tuple[Tensor, Tensor, Tensor]:
        """Bindings [B, T, n keys, n queries, d] and values [B, T, n keys, d] of all steps, and the item memory after
        the last one, mixed axis last."""
        length, (batch, d), n = len(self.left), self.left[0].shape, self.core.f3.out_features
        item = self.core.mixed_last(self.state.item).expand(batch, d, d)
        flow = self._flow(self.state.relation).expand(batch, d, d) if self.accumulates else None
        carry, factors = Carry(item, flow, self.origin_reads), []
        kept = batch * d * (6 * d + n * (7 + 2 * n))  # by one step: memories, gates, what SAM needs
        segment = length if not torch.is_grad_enabled() else min(length, max(1, KEEP // kept))
        for begin in range(0, length, segment):
            steps = range(begin, min(begin + segment, length))
            of_steps, carry = _again(self._steps, segment < length)(steps, carry)
            factors += of_steps
        bindings, values = zip(*factors, strict=True)
        return torch.stack(bindings, dim=1), torch.stack(values, dim=1), carry.item

    def _steps(self, steps: range, carry: Carry) -> tuple[list[tuple[Tensor, Tensor]], Carry]:
        factors = []
        for t in steps:
            if self.begins[t]:
                carry = self._reset(carry, self.starts[t].view(-1, 1, 1))
            of_step, carry = self._step(t, carry)
            factors.append(of_step)
        return factors, carry

    def _reset(self, carry: Carry, starts: Tensor) -> Carry:
        item = torch.where(starts, self.core.mixed_last(self.initial.item), carry.item)
        flow = None if carry.flow is None else torch.where(starts, self._flow(self.initial.relation), carry.flow)
        reads = None if carry.reads is None else torch.where(starts, self.initial_reads, carry.reads)
        return Carry(item, flow, reads)

    def _step(self, t: int, carry: Carry) -> tuple[tuple[Tensor, Tensor], Carry]:
        """``STMCore.step`` up to the relational memory: bindings [B, n keys, n queries, d], values [B, n keys, d], and
        what goes on."""
        v, (item, flow, reads) = self.variant, carry
        # Equations 9 and 10, appendix D.
        candidate = self.left[t].unsqueeze(2) * self.right[t].unsqueeze(1)
        candidate = squash(candidate) if v.gated and v.squash_write else candidate
        passed = None
        if not v.gated:
            written = item + candidate
        else:
            gates = self._product(squash(item), self.gate) + self.gates[t]  # [B, d, 2 d], or [B, d, d]
            gates = gates.sigmoid() if v.sigmoid_gates else gates
            if v.averages:
                passed, written = gates, torch.lerp(item, candidate, gates)
            else:
                input_gate, forget_gate = gates.chunk(2, dim=2)
                written = torch.addcmul(input_gate * candidate, forget_gate, item)
        # Equations 4 to 6, of M^i + α2 v^r ⊗ f2(x).
        rows = F.linear(written, self.core.qkv.weight, self.core.qkv.bias)  # [B, d, 3 n]
        if reads is not None:
            read = reads[:, t]  # α2 v^r
            if v.mix == "columns":
                rows = torch.addcmul(rows, read.unsqueeze(2), self.mapped_cue[t].unsqueeze(1))
            else:
                mapped = F.linear(read, self.core.qkv.weight)
                rows = torch.addcmul(rows, self.cue[t].unsqueeze(2), mapped.unsqueeze(1))
        norm = self.core.qkv_norm
        qkv = norm(rows.mT) if v.qkv_norm == "items" else norm(rows).mT.contiguous()  # [B, 3 n, d]
        # Equation 7, and 13 on the factors.
        query, key, values = qkv.chunk(3, dim=1)  # each [B, n, d]
        bindings = squash(key.unsqueeze(2) * query.unsqueeze(1))
        fresh = self._product(bindings.flatten(2), self.transfer)  # F (α3 G1)ᵀ [B, n keys, d]
        if flow is None:
            transferred = torch.baddbmm(self.transfer_bias, values.mT, fresh)
        else:
            flow = torch.baddbmm(self.fade[0] * flow, values.mT, self.gain[0] * fresh)
            transferred = flow + self.transfer_bias
        item = written + transferred if passed is None else torch.addcmul(written, passed, transferred)
        if reads is not None and t + 1 < len(self.left):
            reads = self._read_later(t, bindings, values, reads)
        return (bindings, values), Carry(item, flow, reads)

    def _read_later(self, t: int, bindings: Tensor, values: Tensor, reads: Tensor) -> Tensor:
        """Equation 11, from the factors: what later steps read of what this one adds."""
        n, length = values.shape[1], reads.shape[1]
        if self.variant.read_axis == "key":
            matches = torch.bmm(bindings.flatten(1, 2), self.cues).view(-1, n, n, length)  # [B, keys, queries, t]
            return torch.baddbmm(reads, (matches * self.later[t]).sum(2).mT, values)
        matches = torch.bmm(values, self.cues).unsqueeze(2)  # [B, keys, 1, t]
        return torch.baddbmm(reads, (matches * self.later[t]).flatten(1, 2).mT, bindings.flatten(1, 2))

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        """x Wᵀ, multiplied in the dtype of the products, but summed over steps in that of the parameters."""
        return F.linear(x.to(self.products), weight.to(self.products)).to(x.dtype)

    def _flow(self, relation: Tensor) -> Tensor:
        """α3 G1(M^r) without its bias: [..., n, d, d] -> [..., d, d]."""
        return F.linear(relation.flatten(-3, -2).mT, self.transfer)

    def _relation_after(self, t: int, bindings: Tensor, values: Tensor) -> Tensor:
        """M^r after step t [B, n, d, d]: what is left of the origin, and what the steps of the episode added."""
        origin, left = self.state.relation, self.fade ** (self.age[t] + 1).unsqueeze(1)  # [B, n]
        lag = torch.arange(t, -1, -1, device=values.device)
        weights = (self.gain * self.fade ** lag.unsqueeze(1)).view(t + 1, 1, -1, 1)  # [τ, 1, n, 1]
        bindings, values = bindings[:, : t + 1], values[:, : t + 1]
        if self.initial is not None:
            origin = torch.where((self.episode[t] > 0).view(-1, 1, 1, 1), self.initial.relation, origin)
            same = (self.episode[: t + 1] == self.episode[t]).T.unsqueeze(2).unsqueeze(3)  # [B, τ, 1, 1]
            bindings, values = torch.where(same.unsqueeze(4), bindings, 0), torch.where(same, values, 0)

        def added(bindings: Tensor, values: Tensor) -> Tensor:  # of b rows -> [b, n * d, d]
            return torch.bmm((bindings * weights).flatten(3).flatten(1, 2).mT, values.flatten(1, 2))

        fresh = _in_blocks(added, bindings, values, bindings[0].numel()).view(len(values), *self._shape)
        return torch.addcmul(fresh, left.view(*left.shape, 1, 1), origin)

    def _read_fresh(self, bindings: Tensor, values: Tensor, since: int) -> Tensor:
        """G2 of what each step from ``since`` on adds [T - since, B, n, r]."""
        weight = self.core.relation_readout.weight

        def read(bindings: Tensor, values: Tensor) -> Tensor:  # of N steps -> [N * n, r]
            factors = bindings.flatten(2).mT, values
            matrices = torch.bmm(*(factor.to(self.products) for factor in factors))  # [N, n * d, d]
            # Last, so that checkpoint need not compute it again.
            return F.linear(matrices.view(-1, weight.shape[1]), weight.to(self.products))

        fresh = bindings[:, since:].flatten(0, 1), values[:, since:].flatten(0, 1)
        features = _in_blocks(read, *fresh, math.prod(self._shape)).to(values.dtype)
        return features.view(len(values), -1, self._shape[0], len(weight)).transpose(0, 1)


def _again(function: Callable, recompute: bool = True) -> Callable:
    """A function that keeps nothing but its arguments for the backward pass, and is then called again."""
    if not recompute:
        return function
    return lambda *args: checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)


def _in_blocks(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, numbers: int) -> Tensor:
    """A function of many rows, block by block.

    :param numbers: that it creates for each row
    """
    rows = max(1, BLOCK // numbers)
    blocks = zip(a.split(rows), b.split(rows), strict=True)
    return torch.cat([_again(function, rows < len(a))(*block) for block in blocks])
