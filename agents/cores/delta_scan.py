"""Memories of matrices that are written by the delta rule: one step, and many at once.

The memory S [k, v] maps keys to values. The delta rule (Widrow and Hoff 1960; as an update of fast weights Schlag,
Irie and Schmidhuber 2021) replaces what a key recalls by a new value, to the degree β; the gated one (Yang, Kautz and
Hatamizadeh 2025) lets all of the memory decay before:

    S_t = α_t S_{t-1} + k_t u_tᵀ,   u_t = β_t (v_t - (α_t S_{t-1})ᵀ k_t),   y_t = S_tᵀ q_t

A chunk of C steps is linear in the memory S before it. With the decay γ_t from before the chunk to step t, and L_tτ
from step τ to t, the u of the chunk solve one triangular system (the WY form of Yang et al. 2024, "Parallelizing linear
transformers with the delta rule over sequence length"):

    (1 + β ∘ tril(K Kᵀ ∘ L, -1)) U = β ∘ V - (β γ ∘ K) S
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .scan import loop


def delta_step(
    query: Tensor, key: Tensor, value: Tensor, write: Tensor, log_decay: Tensor | None, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """Write by the delta rule, then read: query and key [B, H, k], value [B, H, v], write β and log α [B, H] (None: no
    decay), memory [B, H, k, v] -> read-out [B, H, v] and the memory after the step."""
    if log_decay is not None:
        memory = log_decay.exp()[..., None, None] * memory
    recalled = (key.unsqueeze(2) @ memory).squeeze(2)  # [B, H, v]
    memory = memory + key.unsqueeze(3) * (write.unsqueeze(2) * (value - recalled)).unsqueeze(2)
    return (query.unsqueeze(2) @ memory).squeeze(2), memory


def delta_scan(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    write: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    starts: Tensor,
    chunk: int = 32,
) -> tuple[Tensor, Tensor]:
    """The numbers of a loop over ``delta_step``, chunk by chunk. Episodes begin with a memory of zeros.

    :param query: [T, B, H, k], as key
    :param value: [T, B, H, v]
    :param write: β [T, B, H]
    :param log_decay: log α [T, B, H], at most 0 and finite; None: no decay
    :param state: S before the first step [B, H, k, v]
    :param starts: whether an episode begins at a step, bool [T, B]
    :param chunk: steps that are related to each other at once
    :return: read-outs [T, B, H, v], and S after the last step [B, H, k, v]
    """
    parts = (query, key, value, write, log_decay)
    return _in_chunks(_delta_chunk, delta_step, parts, state, starts, chunk)


def generalised_delta_step(
    query: Tensor, key: Tensor, value: Tensor, erase: Tensor, take: Tensor, log_decay: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """S ← diag(w) S - (a ∘ κ) (Sᵀ κ)ᵀ + k vᵀ, then read Sᵀ q (RWKV-7, Peng et al. 2025).

    Query q, key k, erase κ, take a and log w are [B, H, k], value v is [B, H, v], memory S is [B, H, k, v]; what is
    returned is the read-out [B, H, v] and the memory after the step.
    """
    erased = erase.unsqueeze(2) @ memory  # [B, H, 1, v]
    memory = log_decay.exp().unsqueeze(3) * memory - (take * erase).unsqueeze(3) * erased
    memory = memory + key.unsqueeze(3) * value.unsqueeze(2)
    return (query.unsqueeze(2) @ memory).squeeze(2), memory


def generalised_delta_scan(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    erase: Tensor,
    take: Tensor,
    log_decay: Tensor,
    state: Tensor,
    starts: Tensor,
    chunk: int = 32,
) -> tuple[Tensor, Tensor]:
    """The numbers of a loop over ``generalised_delta_step``, as ``delta_scan`` has those of ``delta_step``.

    :param query: [T, B, H, k], as key, erase κ, take a and log_decay
    :param value: [T, B, H, v]
    :param log_decay: log w, from -2 to 0: what is written in a chunk is divided by the decay until then, which must
        stay above the least float32
    :return: read-outs [T, B, H, v], and S after the last step [B, H, k, v]
    """
    parts = (query, key, value, erase, take, log_decay)
    return _in_chunks(_generalised_chunk, generalised_delta_step, parts, state, starts, chunk)


def _in_chunks(
    run: Callable, step: Callable, parts: Sequence[Tensor | None], state: Tensor, starts: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """One chunk after the other, by ``run``; those in which something is not finite, by ``step``.

    :param run: (parts [C, B, ...], memory, starts [C, B]) -> (read-outs [C, B, H, v], memory)
    :param step: (parts [B, ...], memory) -> (read-out [B, H, v], memory)
    """

    def reset(memory: Tensor, starts: Tensor) -> Tensor:
        return torch.where(starts.view(-1, 1, 1, 1), 0, memory)

    reads, memory = [], state
    for cut in (slice(begin, begin + chunk) for begin in range(0, len(starts), chunk)):
        now = [part if part is None else part[cut] for part in parts]
        y, after = run(*now, memory, starts[cut])
        if not (y.sum() + after.sum()).isfinite():  # a reset must select what follows, where run multiplies by zero
            steps = zip(*(itertools.repeat(None) if part is None else part for part in now), strict=False)
            outputs, after = loop(lambda part, memory: step(*part, memory), reset, steps, memory, starts[cut])
            y = torch.stack(outputs)
        reads.append(y)
        memory = after
    return torch.cat(reads), memory


def _delta_chunk(
    query: Tensor, key: Tensor, value: Tensor, write: Tensor, log_decay: Tensor | None, memory: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    batch, heads = query.shape[1:3]
    q, k, v, beta = map(_rows, (query, key, value, write.unsqueeze(3)))  # [B * H, C, ...]
    memory = memory.flatten(0, 1)  # [B * H, k, v]
    left, origin = _episodes(starts, heads, q.dtype)
    if log_decay is not None:
        rates = log_decay.flatten(1).T  # [B * H, C]
        # Sums of what lies between, not differences of sums from the beginning, in which small decays would drown.
        later = torch.ones_like(left[0]).tril(-1).bool()
        left = left * torch.where(later, rates.unsqueeze(2), 0).cumsum(1).exp()
        origin = origin * rates.cumsum(1).exp().unsqueeze(2)

    written_key = beta * k
    system = torch.bmm(written_key, k.mT) * left  # of which only what is below the diagonal counts
    known = torch.baddbmm(beta * v, origin * written_key, memory, alpha=-1)
    u = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)  # [B * H, C, v]
    y = torch.baddbmm(torch.bmm(origin * q, memory), torch.bmm(q, k.mT) * left, u)
    after = torch.baddbmm(origin[:, -1:] * memory, (left[:, -1].unsqueeze(2) * k).mT, u)
    return y.transpose(0, 1).unflatten(1, (batch, heads)), after.unflatten(0, (batch, heads))


def _generalised_chunk(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    erase: Tensor,
    take: Tensor,
    log_decay: Tensor,
    memory: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor]:
    """With what a step erases, e_t = S_{t-1}ᵀ κ_t, all writes of the chunk are known: S_t is the decayed memory before
    it and the sum of (k_τ v_τᵀ - a_τ ∘ κ_τ e_τᵀ), decayed since; and the e solve a triangular system."""
    batch, heads = query.shape[1:3]
    q, k, v, erase, take, rates = map(_rows, (query, key, value, erase, take, log_decay))  # [B * H, C, ...]
    memory = memory.flatten(0, 1)  # [B * H, k, v]
    left, origin = _episodes(starts, heads, q.dtype)
    # The logarithm of the decay from before the chunk, or before the episode, to a step [B * H, C, k]: reads are
    # multiplied by that decay, and writes divided by it.
    total = torch.bmm(left, rates)
    reading, erasing, grown = total.exp() * q, (total - rates).exp() * erase, (-total).exp()
    written, taken = grown * k, grown * take * erase

    system = torch.bmm(erasing, taken.mT) * left  # of which only what is below the diagonal counts
    known = torch.baddbmm(torch.bmm(origin * erasing, memory), (torch.bmm(erasing, written.mT) * left).tril(-1), v)
    erased = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)  # e [B * H, C, v]
    old = torch.baddbmm(torch.bmm(origin * reading, memory), torch.bmm(reading, written.mT) * left, v)
    y = torch.baddbmm(old, torch.bmm(reading, taken.mT) * left, erased, alpha=-1)
    last = left[:, -1].unsqueeze(2)
    after = torch.baddbmm(origin[:, -1:] * memory, (last * written).mT, v)
    after = torch.baddbmm(after, (last * taken).mT, erased, alpha=-1) * total[:, -1].exp().unsqueeze(2)
    return y.transpose(0, 1).unflatten(1, (batch, heads)), after.unflatten(0, (batch, heads))


def _rows(part: Tensor) -> Tensor:
    """[C, B, H, ...] -> [B * H, C, ...]."""
    return part.flatten(1, 2).transpose(0, 1)


def _episodes(starts: Tensor, heads: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Ones where step τ <= t is of the episode of step t [B * H, t, τ], and where that began before the chunk
    [B * H, t, 1]; zeros elsewhere."""
    episode = starts.T.repeat_interleave(heads, 0).cumsum(1)
    within = (episode.unsqueeze(2) == episode.unsqueeze(1)).tril()
    return within.to(dtype), (episode == 0).unsqueeze(2).to(dtype)
