"""Ways through a sequence whose rows begin episodes anywhere: step by step, between resets, and all steps at once.

All of them compute what the plain loop does, exactly: what was before a reset is selected away, never multiplied by
zero, so that it may have overflowed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def loop(step: Callable, reset: Callable, x: Iterable[Any], state: Any, starts: Tensor) -> tuple[list[Any], Any]:
    """One step after the other.

    :param step: (input of a step, state) -> (output, state)
    :param reset: (state, starts [B]) -> state
    :param x: inputs [T, B, ...], or anything else with an item for each step
    :param starts: whether an episode begins at a step, bool [T, B]
    :return: the output of every step, and the state after the last
    """
    outputs = []
    for x_t, starts_t, any_start in zip(x, starts, starts.any(dim=1).tolist(), strict=True):
        if any_start:
            state = reset(state, starts_t)
        y, state = step(x_t, state)
        outputs.append(y)
    return outputs, state


def reset_free_segments(starts: Tensor) -> list[tuple[int, int]]:
    """Cut [0, T) before every step at which any row of starts [T, B] begins an episode: [(begin, end), ...].

    Inside a segment nothing is reset, so a fused kernel may run it whole.
    """
    cuts = starts.any(dim=1).nonzero().flatten().tolist()
    bounds = sorted({0, *cuts, len(starts)})
    return list(itertools.pairwise(bounds))


def in_segments(run: Callable, reset: Callable, x: Tensor, state: Any, starts: Tensor) -> tuple[Tensor, Any]:
    """One reset-free segment after the other.

    :param run: (x [S, B, ...], state) -> (outputs [S, B, ...], state)
    :param reset: (state, starts [B]) -> state
    :return: outputs [T, B, ...], and the state after the last step
    """
    outputs = []
    for begin, end in reset_free_segments(starts):
        y, state = run(x[begin:end], reset(state, starts[begin]))
        outputs.append(y)
    return torch.cat(outputs), state


def linear_scan(decay: Tensor, write: Tensor, state: Tensor, starts: Tensor, initial: Tensor | None = None) -> Tensor:
    """h_t = decay_t * h_{t-1} + write_t, elementwise, real or complex.

    The gradient is one more such recurrence, from the last step to the first. On a CPU both run step after step, within
    preallocated memory; on a GPU in a number of operations that grows with log T (Blelloch 1990, "Prefix sums and their
    applications").

    :param decay: [T, B, ...], or what broadcasts to it
    :param write: [T, B, ...]
    :param state: h before the first step [B, ...], or what broadcasts to it
    :param starts: whether an episode begins at a step, bool [T, B]
    :param initial: h before the first step of an episode, which broadcasts to [B, ...]; None: zero
    :return: h after every step [T, B, ...]
    """
    fresh = starts.view(*starts.shape, *[1] * (write.dim() - 2))  # [T, B, 1...]: these steps forget what was before
    decay = decay.expand_as(write)
    if initial is not None:
        write = torch.where(fresh, torch.addcmul(write, decay, initial.to(write.dtype)), write)
    return _LinearScan.apply(decay, write, state.to(write.dtype).expand_as(write[0]), fresh)


class _LinearScan(torch.autograd.Function):
    """h_t = write_t + (fresh_t ? 0 : decay_t * h_{t-1})."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, write: Tensor, state: Tensor, fresh: Tensor) -> Tensor:
        h = torch.empty_like(write, memory_format=torch.contiguous_format)
        _recur(decay, write, state, fresh, out=h)
        ctx.save_for_backward(decay, state, fresh, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        decay, state, fresh, h = ctx.saved_tensors
        # What reaches the loss through h_t: directly, and through h_{t+1}. It is the gradient of write_t too.
        total = torch.empty_like(h)
        total[-1] = d_h[-1]
        _recur(decay[1:].conj(), d_h[:-1], total[-1], fresh[1:], out=total[:-1], reverse=True)
        d_decay = torch.empty_like(h)
        torch.mul(total[:1], state.conj(), out=d_decay[:1])
        torch.mul(total[1:], h[:-1].conj(), out=d_decay[1:])
        d_decay.masked_fill_(fresh, 0)
        d_state = torch.where(fresh[0], 0, total[0] * decay[0].conj())
        return d_decay, total, d_state, None


def _recur(decay: Tensor, added: Tensor, h: Tensor, fresh: Tensor, out: Tensor, reverse: bool = False) -> None:
    """out_t = added_t + (fresh_t ? 0 : decay_t * out_{t-1}) for all [T, ...], where h is before the first step; or the
    other way round, from the last step to the first."""
    if not len(out):
        return
    if out.is_cuda:
        decay, added, fresh = (part.flip(0) if reverse else part for part in (decay, added, fresh))
        first = torch.where(fresh[:1], added[:1], torch.addcmul(added[:1], decay[:1], h))
        after = _prefixes(decay, torch.cat([first, added[1:]]), fresh)
        out.copy_(after.flip(0) if reverse else after)
        return
    steps = list(zip(decay, added, fresh, fresh.flatten(1).any(1).tolist(), out, strict=True))
    for decay_t, added_t, fresh_t, any_fresh, out_t in reversed(steps) if reverse else steps:
        torch.addcmul(added_t, decay_t, torch.where(fresh_t, 0, h) if any_fresh else h, out=out_t)
        h = out_t


def _prefixes(decay: Tensor, added: Tensor, fresh: Tensor) -> Tensor:
    """What the first t of the maps h -> fresh ? added : decay * h + added, one after the other, make of zero: [T, ...].

    Pairs of neighbours are one map each; of half as many maps, the odd prefixes; from these, the even ones.
    """
    length = len(added)
    if length == 1:
        return added
    even, odd = slice(0, length - 1, 2), slice(1, length, 2)
    pairs = torch.where(fresh[odd], added[odd], torch.addcmul(added[odd], decay[odd], added[even]))
    odds = _prefixes(decay[odd] * decay[even], pairs, fresh[odd] | fresh[even])  # after steps 1, 3, ...
    later = slice(2, length, 2)
    before = odds[: (length - 1) // 2]
    evens = torch.where(fresh[later], added[later], torch.addcmul(added[later], decay[later], before))
    evens = torch.cat([added[:1], evens])
    joined = torch.stack([evens[: len(odds)], odds], dim=1).flatten(0, 1)
    return joined if length % 2 == 0 else torch.cat([joined, evens[-1:]])


def matrix_scan(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    decay: Tensor,
    state: Tensor,
    starts: Tensor,
    initial: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Read-outs S_tᵀ q_t of a memory of matrices S_t = decay_t S_{t-1} + k_t v_tᵀ, which is formed only between chunks:
    inside, a read-out is attention over the steps of the chunk (the chunked form of linear attention).

    :param query: [T, B, k], as key
    :param value: [T, B, v]
    :param decay: one number in [0, 1] per memory, [T, B]
    :param state: S before the first step [B, k, v]
    :param starts: whether an episode begins at a step, bool [T, B]
    :param initial: S before the first step of an episode, which broadcasts to [B, k, v]; None: zero
    :param chunk: steps that are related to each other at once
    :return: read-outs [T, B, v], and S after the last step [B, k, v]
    """
    initial = torch.zeros_like(state) if initial is None else initial.expand_as(state)
    reads = []
    for cut in (slice(begin, begin + chunk) for begin in range(0, len(query), chunk)):
        q, k, v, rate, begins = (
            part[cut].transpose(0, 1) for part in (query, key, value, decay, starts)
        )  # [B, C, ...]
        episode = begins.cumsum(1)
        left = torch.where(episode.unsqueeze(2) == episode.unsqueeze(1), _left(rate), 0).tril()  # [B, C, C]
        first = torch.where(begins, torch.arange(q.shape[1], device=q.device), 0).cummax(1).values  # of the episode
        of_origin = (left.gather(2, first.unsqueeze(2)).squeeze(2) * rate.gather(1, first)).unsqueeze(2)  # [B, C, 1]
        begun = episode.unsqueeze(2) > 0  # in this chunk, so from the initial memory [B, C, 1]
        of_state = torch.bmm(torch.where(begun, 0, q), state)  # where an episode has begun, it has no gradient either
        old = of_origin * torch.where(begun, torch.bmm(q, initial), of_state)
        reads.append((old + torch.bmm(torch.bmm(q, k.mT) * left, v)).transpose(0, 1))
        origin = of_origin[:, -1:] * torch.where(begun[:, -1:], initial, state)
        state = torch.baddbmm(origin, (k * left[:, -1].unsqueeze(2)).mT, v)
    return torch.cat(reads), state


def _left(decay: Tensor) -> Tensor:
    """How much of what step τ writes is left after step t, where τ <= t: decay [B, C] -> [B, t, τ]."""
    step = torch.arange(decay.shape[1], device=decay.device)
    later = step.unsqueeze(1) > step
    return torch.where(later, decay.unsqueeze(2), 1).cumprod(1)
