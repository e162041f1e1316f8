"""The STM over a whole sequence: the numbers of its steps, in another order.

1. What depends on the input alone is projected for all steps at once.
2. ``ItemScan`` runs the one true recurrence, that of the item memory, which yields q, k and v of every step.
3. The relational memory is formed, from q, k and v, only where it is read: its read-out is linear, so what the read-out
   finds in it is summed up from what it finds in the relations of each step (``Fading``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .stm_relation import Fading, ReadFresh, Remember, recall
from .stm_scan import ItemScan, Operands, Rule

if TYPE_CHECKING:
    from .stm import STMCore, Write

CHUNK = 64  # steps within which the relational memory is read as attention over earlier steps


def can_run(core: STMCore) -> bool:
    """Whether this variant has a fast path: what flows back into the item memory from an accumulated relational memory
    is carried along as one matrix, which needs that nothing in it fades and that no gate is between."""
    v = core.variant
    if v.transfer_from == "fresh" or not v.carries_relation:
        return True
    return v.relation_update == "add" and not (v.gated and v.item_update == "average")


def run(core: STMCore, x: Tensor, state: Any, starts: Tensor, since: int, products: torch.dtype) -> tuple[Tensor, Any]:
    """
    :param x: inputs [T, B, F]
    :param starts: whether an episode begins at a step [T, B]
    :param since: first step whose features are needed
    :param products: dtype of the large matrix products
    :return: features of M^r [T - since, B, n, r], and the state after the last step
    """
    features = []
    for begin in range(0, len(x), CHUNK):
        chunk = slice(begin, begin + CHUNK)
        read, state = _run_chunk(core, x[chunk], state, starts[chunk], max(0, since - begin), products, len(x))
        features += read
    return torch.cat(features), state


def _run_chunk(
    core: STMCore, x: Tensor, state: Any, starts: Tensor, since: int, products: torch.dtype, length: int
) -> tuple[list[Tensor], Any]:
    resets = starts.any(dim=1).tolist()
    initial = type(state)(*(leaf[0] for leaf in core.initial_state(1))) if any(resets) else None
    if resets[0]:  # what the chunk begins with is then what the episode begins with
        # Where all episodes begin here, with one memory for all of them, without a batch dimension.
        state = initial if starts[0].all() else core.reset(state, starts[0])
        starts, resets[0] = torch.cat([torch.zeros_like(starts[:1]), starts[1:]]), False
    initial = initial if any(resets) else None
    fade, gain = (rate.expand(core.f3.out_features, 1).squeeze(1) for rate in core.rates())  # [n]

    where = [row.view(-1, 1, 1) if reset else None for row, reset in zip(starts, resets, strict=True)]
    operands = _operands(core, core.project(x), state, initial, starts, fade, gain)
    rule = Rule(core.variant, where, products, torch.is_grad_enabled(), length)  # inside a Function it never is
    qkv, item = ItemScan.apply(rule, *operands)  # [T, B, 3 * n, d], [B, d, d]
    item = core.turn(item)

    def read_fresh() -> Tensor:
        """What G2 reads from the relations of each step [T - since, B, n, r]."""
        read = ReadFresh.apply(qkv[since:].flatten(0, 1), core.relation_readout.weight, products)
        return read.unflatten(0, (-1, x.shape[1]))

    if not core.variant.carries_relation:
        return [read_fresh()] if since < len(x) else [], type(state)(item)

    fading = Fading.of(fade, starts)

    def memory(t: int) -> Tensor:
        """M^r after step t."""
        origin = state.relation
        if initial is not None:
            origin = torch.where((fading.episode[t] > 0).view(-1, 1, 1, 1), initial.relation, origin)
        return Remember.apply(qkv[: t + 1], gain * fading.between[t, : t + 1], origin, fading.origin[t])

    last = memory(len(x) - 1)
    features = []
    if since == len(x) - 1:
        features = [core.read_relations(last).unsqueeze(0)]
    elif since < len(x):
        before = core.read_relations(memory(since - 1) if since else state.relation)  # [B, n, r]
        anew = None if initial is None else core.read_relations(initial.relation)  # [n, r]
        features = [fading.add_up(gain.unsqueeze(1) * read_fresh(), since, before, anew)]
    return features, type(state)(item, last)


def _operands(
    core: STMCore, write: Write, state: Any, initial: Any, starts: Tensor, fade: Tensor, gain: Tensor
) -> Operands:
    """The scan's inputs, with what every step would multiply the same already multiplied.

    :param state: memories at the start, without a batch dimension where they are the same for all
    :param initial: memories of a new episode, without a batch dimension; None: no episode begins
    :param fade: λ of M^r_t = λ M^r_{t-1} + g SAM_t [n]
    :param gain: g [n]
    """
    v, left, right = core.variant, *core.sides(write.factors)
    cue = reads = address = flow = initial_flow = None
    transfer = core.alpha3 * core.transfer.weight
    if v.carries_relation:
        fading, cue = Fading.of(fade, starts, before=True), write.cue
        address = core.alpha2 * write.address  # [T, B, n]
        reads = recall(address * fading.origin, cue, state.relation, v.read_axis)
        if initial is not None:
            anew = recall(address * fading.origin, cue, initial.relation, v.read_axis)
            reads = torch.where(fading.episode.unsqueeze(2) > 0, anew, reads)
        address = (gain * address.unsqueeze(1) * fading.between).permute(1, 2, 0, 3)  # [τ, B, t, n]
        if v.transfer_from == "accumulated":
            flow = F.linear(state.relation.flatten(-3, -2).mT, transfer).expand(left.shape[1], -1, -1)
            initial_flow = None if initial is None else F.linear(initial.relation.flatten(-3, -2).mT, transfer)
            transfer = transfer * gain.repeat_interleave(core.f1.out_features)
    gate = gates = None
    if v.gated:
        gate, gates = core.gate_memory.weight, write.gates  # [2 * d, d], [T, B, 2 * d]
        if core.gate_memory.bias is not None:
            gates = gates + core.gate_memory.bias
        if v.item_update == "average":  # gates that sum to one depend on the difference of their logits
            gate, gates = (torch.sub(*both.chunk(2, dim=dim)) for both, dim in ((gate, 0), (gates, 2)))
    return Operands(
        left=left,
        right=right,
        gates=gates,
        cue=cue,
        reads=reads,
        address=address,
        item=core.turn(state.item).expand(left.shape[1], -1, -1),
        flow=flow,
        initial_item=None if initial is None else core.turn(initial.item),
        initial_flow=initial_flow,
        gate=gate,
        qkv=core.qkv.weight,
        qkv_bias=core.qkv.bias,
        norm=core.qkv_norm.weight,
        norm_bias=core.qkv_norm.bias,
        transfer=transfer,
        transfer_bias=core.alpha3 * core.transfer.bias,
    )
