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
from .stm_scan import Inputs, ItemScan, Maps, Rule, Start

if TYPE_CHECKING:
    from .stm import STMCore, STMState, Write

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
        read, state = _run_chunk(core, x[chunk], state, starts[chunk], max(0, since - begin), products)
        features += read
    return torch.cat(features), state


def _run_chunk(
    core: STMCore, x: Tensor, state: Any, starts: Tensor, since: int, products: torch.dtype
) -> tuple[list[Tensor], Any]:
    resets = starts.any(dim=1).tolist()
    if resets[0]:  # what the chunk begins with is then what the episode begins with
        state = core.reset(state, starts[0])
        starts, resets[0] = torch.cat([torch.zeros_like(starts[:1]), starts[1:]]), False
    initial = type(state)(*(leaf[0] for leaf in core.initial_state(1))) if any(resets) else None
    carries, write = core.variant.carries_relation, core.project(x)
    keep, take = (rate.expand(core.f3.out_features, 1).squeeze(1) for rate in core.rates())  # [n]

    recalled = (
        _recalled(core, write, state, initial, Fading.of(keep, starts, before=True), take) if carries else (None,) * 3
    )
    rule = Rule(
        core.variant, [row.view(-1, 1, 1) if new else None for row, new in zip(starts, resets, strict=True)], products
    )
    inputs = Inputs(*core.sides(write.factors), _gates(core, write.gates), *recalled)
    start = Start(*_item_and_flow(core, state), *_item_and_flow(core, initial))
    qkv, item = ItemScan.apply(rule, *inputs, *start, *_maps(core, take))  # [T, B, 3 * n, d], [B, d, d]
    item = core.turn(item)

    def read_fresh(begin: int) -> Tensor:
        """What G2 reads from the relations of each step [T - begin, B, n, r]."""
        read = ReadFresh.apply(qkv[begin:].flatten(0, 1), core.relation_readout.weight, products)
        return read.unflatten(0, (-1, x.shape[1]))

    if not carries:
        return [read_fresh(since)] if since < len(x) else [], type(state)(item)

    fading = Fading.of(keep, starts)

    def memory(t: int) -> Tensor:
        """M^r after step t."""
        origin = state.relation
        if initial is not None:
            origin = torch.where((fading.episode[t] > 0).view(-1, 1, 1, 1), initial.relation, origin)
        return Remember.apply(qkv[: t + 1], take * fading.between[t, : t + 1], origin, fading.origin[t])

    last = memory(len(x) - 1)
    if since >= len(x):
        features = []
    elif since == len(x) - 1:
        features = [core.read_relations(last).unsqueeze(0)]
    else:
        before = core.read_relations(memory(since - 1) if since else state.relation)  # [B, n, r]
        anew = None if initial is None else core.read_relations(initial.relation)  # [n, r]
        features = [fading.add_up(take.unsqueeze(1) * read_fresh(since), since, before, anew)]
    return features, type(state)(item, last)


def _recalled(
    core: STMCore, write: Write, state: STMState, initial: STMState | None, fading: Fading, take: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cues and what they read from the memory that their episode began with, both [T, B, d], and the addresses by which
    a step reads what the steps before it add [τ, B, t, n]."""
    address, axis = core.alpha2 * write.address, core.variant.read_axis  # [T, B, n]
    faded = address * fading.origin
    reads = recall(faded, write.cue, state.relation, axis)
    if initial is not None:
        anew = recall(faded, write.cue, initial.relation.expand_as(state.relation), axis)
        reads = torch.where(fading.episode.unsqueeze(2) > 0, anew, reads)
    return write.cue, reads, (take * address.unsqueeze(1) * fading.between).permute(1, 2, 0, 3)


def _item_and_flow(core: STMCore, state: Any) -> tuple[Tensor | None, Tensor | None]:
    """The item memory, turned, and what flows into it from an accumulated relational memory, but for its bias."""
    if state is None:
        return None, None
    flow = None
    if core.variant.carries_relation and core.variant.transfer_from == "accumulated":
        flow = F.linear(state.relation.flatten(-3, -2).mT, core.alpha3 * core.transfer.weight)
    return core.turn(state.item), flow


def _gates(core: STMCore, gates: Tensor) -> Tensor | None:
    """The input's share of the gates, all biases included; the difference of the two where they sum to one."""
    if not core.variant.gated:
        return None
    if core.gate_memory.bias is not None:
        gates = gates + core.gate_memory.bias
    return _one_gate(core, gates, dim=-1)


def _one_gate(core: STMCore, gates: Tensor, dim: int) -> Tensor:
    take, keep = gates.chunk(2, dim=dim)
    return take - keep if core.variant.item_update == "average" else gates


def _maps(core: STMCore, take: Tensor) -> Maps:
    transfer = core.alpha3 * core.transfer.weight
    if core.variant.carries_relation and core.variant.transfer_from == "accumulated":
        transfer = transfer * take.repeat_interleave(core.f1.out_features)
    return Maps(
        gate=_one_gate(core, core.gate_memory.weight, dim=0) if core.variant.gated else None,
        qkv=core.qkv.weight,
        qkv_bias=core.qkv.bias,
        norm=core.qkv_norm.weight,
        norm_bias=core.qkv_norm.bias,
        transfer=transfer,
        transfer_bias=core.alpha3 * core.transfer.bias,
    )
