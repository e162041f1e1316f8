"""Ways through a sequence whose rows begin episodes anywhere: step by step, between resets, and all steps at once.

All of them compute what the plain loop does, exactly: what was before a reset is selected away, not multiplied by zero,
so that it may have overflowed; of what a chunk of the matrix scans holds, ``unless_ruined`` takes care.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

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


def unless_ruined(sequence: Callable) -> Callable:
    """A core's ``sequence`` that multiplies what was before a reset by zero, made exact: where that was not finite, so
    that the result is not, a loop of steps takes its place, which selects."""

    @functools.wraps(sequence)
    def wrapper(core: Any, x: Tensor, state: Any, starts: Tensor, since: int) -> tuple[Tensor, Any]:
        y, after = sequence(core, x, state, starts, since)
        if sum(leaf.detach().sum() for leaf in (y, *after)).isfinite():
            return y, after
        outputs, after = loop(core.step, core.reset, x, state, starts)
        return torch.stack(outputs[since:]), after

    return wrapper


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

    Between B and the last dimension there may be more, such as that of heads: each has a memory of its own.

    :param query: [T, B, ..., k], as key
    :param value: [T, B, ..., v]
    :param decay: one number in [0, 1] per memory, [T, B, ...], or what broadcasts to it: what is the same at all steps
        is [1, ...] and takes less time
    :param state: S before the first step [B, ..., k, v]
    :param starts: whether an episode begins at a step, bool [T, B]
    :param initial: S before the first step of an episode, which broadcasts to [B, ..., k, v]; None: zero
    :param chunk: steps that are related to each other at once
    :return: read-outs [T, B, ..., v], and S after the last step [B, ..., k, v]
    """
    decay = decay.expand(len(query), *decay.shape[1:])
    reads = []
    for part in chunks(starts, chunk, query.dim()):
        q, k, v = (part.of(tensor) for tensor in (query, key, value))  # [B, ..., C, k or v]
        rate = part.of(decay.unsqueeze(-1))  # [B, ..., C, 1]
        left = torch.where(part.later, rate, 1).cumprod(-2)  # of what step τ writes, after step t [B, ..., t, τ]
        of_origin = part.at_first(left) * part.at_first(rate.mT)  # [B, ..., C, 1]
        read, state = part.attend(q, k, v, torch.where(part.together, left, 0), of_origin, state, initial)
        reads.append(read)
    return torch.cat(reads), state


def log_matrix_scan(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_write: Tensor,
    log_decay: Tensor,
    state: Tensor,
    stabiliser: Tensor,
    starts: Tensor,
    chunk: int = 64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``matrix_scan`` of S_t = decay_t S_{t-1} + write_t k_t v_tᵀ, where writes may be beyond what a float can hold:
    memories are kept as S exp(-m), with m_t = max(log decay_t + m_{t-1}, log write_t), which is zero as S is when an
    episode begins (the stabiliser of mLSTM, Beck et al. 2024).

    :param log_write: any number per memory, [T, B, ...]
    :param log_decay: a number of at most zero per memory, [T, B, ...]
    :param state: S exp(-m) before the first step [B, ..., k, v]
    :param stabiliser: m before the first step [B, ...]
    :return: read-outs (S_t exp(-m_t))ᵀ q_t [T, B, ..., v], m at every step [T, B, ...], and both after the last step
    """
    reads, stabilisers = [], []
    for part in chunks(starts, chunk, query.dim()):
        q, k, v = (part.of(tensor) for tensor in (query, key, value))  # [B, ..., C, k or v]
        log_i, log_f = part.of(log_write.unsqueeze(-1)).mT, part.of(log_decay.unsqueeze(-1))  # [.., 1, C], [.., C, 1]
        log_left = torch.where(part.later, log_f, 0).cumsum(-2)  # [B, ..., t, τ]
        before = torch.where(part.begun, 0, stabiliser.unsqueeze(-1).unsqueeze(-1))
        log_origin = part.at_first(log_left) + part.at_first(log_f.mT) + before  # [B, ..., C, 1]
        log_written = torch.where(part.together, log_left + log_i, -torch.inf)
        m = torch.maximum(log_origin, log_written.amax(-1, keepdim=True))  # [B, ..., C, 1]
        read, state = part.attend(q, k, v, (log_written - m).exp(), (log_origin - m).exp(), state)
        stabiliser = m[..., -1, 0]
        reads.append(read)
        stabilisers.append(m.squeeze(-1).movedim(-1, 0))
    return torch.cat(reads), torch.cat(stabilisers), state, stabiliser


def channel_matrix_scan(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, state: Tensor, starts: Tensor, chunk: int = 32
) -> tuple[Tensor, Tensor]:
    """``matrix_scan`` of S_t = diag(decay_t) S_{t-1} + k_t v_tᵀ, from zero in every episode: each channel of the keys
    fades by itself (gated linear attention, Yang et al. 2024).

    What is left of a write is split into a factor of the query and one of the key. Float32 can hold both as long as no
    channel fades faster than by exp(-160 / chunk) in a step.

    :param log_decay: a number from -160 / chunk to 0 per channel, [T, B, ..., k]
    :return: read-outs [T, B, ..., v], and S after the last step [B, ..., k, v]
    """
    reads = []
    for part in chunks(starts, chunk, query.dim()):
        q, k, v = (part.of(tensor) for tensor in (query, key, value))  # [B, ..., C, k or v]
        together = part.together.to(log_decay.dtype)
        total = together @ part.of(log_decay)  # since the chunk or the episode began [B, ..., C, k]
        middle, end = total.detach().amin(-2, keepdim=True) / 2, total[..., -1:, :]
        near = (q * (total - middle).exp()) @ (k * (middle - total).exp()).mT  # [B, ..., t, τ]
        far = torch.where(part.begun, 0, q * total.exp()) @ state
        reads.append((torch.where(part.together, near, 0) @ v + torch.where(part.begun, 0, far)).movedim(-2, 0))
        # Of steps of an earlier episode nothing is left: it is their exponents that are masked, which may overflow.
        left = torch.where(part.together[..., -1:, :].mT, end - total, -torch.inf).exp()
        state = _add_product(end.exp().mT * torch.where(part.begun[..., -1:, :], 0, state), (k * left).mT, v)
    return torch.cat(reads), state


class Chunk(NamedTuple):
    """Which steps of a chunk of C steps belong together."""

    steps: slice
    later: Tensor  # whether step t is after step τ, [t, τ]
    together: Tensor  # whether step τ is in the episode of step t and not after it, [B, 1..., t, τ]
    begun: Tensor  # whether the episode of a step began within the chunk, [B, 1..., C, 1]
    first: Tensor  # the first step of the chunk that is in the episode of a step, [B, 1..., C, 1]

    def of(self, sequence: Tensor) -> Tensor:
        """[T, B, ..., n] -> [B, ..., C, n]"""
        return sequence[self.steps].movedim(0, -2)

    def at_first(self, of_steps: Tensor) -> Tensor:
        """What stands at the first step of the episode of each step, of [B, ..., C or 1, C] -> [B, ..., C, 1]."""
        shape = torch.broadcast_shapes(of_steps.shape[:-1], self.first.shape[:-1])
        return of_steps.expand(*shape, -1).gather(-1, self.first.expand(*shape, -1))

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        left: Tensor,
        of_origin: Tensor,
        state: Tensor,
        initial: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Read-outs of the chunk, and the memory after it, where ``left`` [B, ..., t, τ] is how much of what step τ
        writes is left at step t, and ``of_origin`` [B, ..., C, 1] of the memory before the chunk or the episode."""
        zero = q.new_zeros(())
        of_initial, initial = (zero, zero) if initial is None else (q @ initial, initial)
        of_state = torch.where(self.begun, 0, q) @ state  # where an episode has begun, there is no gradient either
        read = of_origin * torch.where(self.begun, of_initial, of_state) + ((q @ k.mT) * left) @ v
        origin = of_origin[..., -1:, :] * torch.where(self.begun[..., -1:, :], initial, state)
        return read.movedim(-2, 0), _add_product(origin, (k * left[..., -1:, :].mT).mT, v)


def _add_product(origin: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """origin [..., k, v] + a [..., k, C] @ b [..., C, v], in place of ``origin``, a product that nobody else has."""
    origin.flatten(0, -3).baddbmm_(a.flatten(0, -3), b.flatten(0, -3))
    return origin


def chunks(starts: Tensor, size: int, dims: int) -> Iterator[Chunk]:
    """Chunks of at most ``size`` steps of sequences of that many dimensions."""
    for begin in range(0, len(starts), size):
        steps = slice(begin, begin + size)
        begins = starts[steps]
        if not begins.any():
            begins = begins[:, :1]  # one row stands for all
        begins = begins.T.view(-1, *[1] * (dims - 3), len(begins))  # [B, 1..., C]
        step = torch.arange(begins.shape[-1], device=starts.device)
        later = step.unsqueeze(1) > step
        episode = begins.cumsum(-1)
        together = (episode.unsqueeze(-1) == episode.unsqueeze(-2)).tril()
        first = torch.where(begins, step, 0).cummax(-1).values
        yield Chunk(steps, later, together, episode.unsqueeze(-1) > 0, first.unsqueeze(-1))
