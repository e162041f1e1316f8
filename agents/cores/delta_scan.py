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
    reads, memory = [], state
    for cut in (slice(begin, begin + chunk) for begin in range(0, len(query), chunk)):
        parts = [part if part is None else part[cut] for part in (query, key, value, write, log_decay)]
        y, after = _chunk(*parts, memory, starts[cut])
        if not (y.sum() + after.sum()).isfinite():  # where a reset must select what follows, not multiply by zero
            y, after = _steps(*parts, memory, starts[cut])
        reads.append(y)
        memory = after
    return torch.cat(reads), memory


def _chunk(
    query: Tensor, key: Tensor, value: Tensor, write: Tensor, log_decay: Tensor | None, memory: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """All steps at once, if all that they see is finite."""
    batch, heads = query.shape[1:3]
    q, k, v, beta = (part.flatten(1, 2).transpose(0, 1) for part in (query, key, value, write.unsqueeze(3)))
    memory = memory.flatten(0, 1)  # [B * H, k, v]; the others are [B * H, C, ...]
    episode = starts.T.repeat_interleave(heads, 0).cumsum(1)
    within = (episode.unsqueeze(2) == episode.unsqueeze(1)).tril()  # [B * H, t, τ]: τ is of the episode of t
    left, origin = within.to(q.dtype), (episode == 0).unsqueeze(2).to(q.dtype)
    if log_decay is not None:
        rates = log_decay.flatten(1).T
        # Sums of what lies between, not differences of sums from the beginning, in which small decays would drown.
        later = torch.ones_like(within[0]).tril(-1)
        left = left * torch.where(later, rates.unsqueeze(2), 0).cumsum(1).exp()
        origin = origin * rates.cumsum(1).exp().unsqueeze(2)

    written_key = beta * k
    system = torch.bmm(written_key, k.mT) * left
    known = torch.cat([beta * v, origin * written_key], dim=2)
    written, erasing = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True).split(
        [v.shape[2], k.shape[2]], dim=2
    )
    u = torch.baddbmm(written, erasing, memory, alpha=-1)  # [B * H, C, v]
    y = torch.baddbmm(torch.bmm(origin * q, memory), torch.bmm(q, k.mT) * left, u)
    after = torch.baddbmm(origin[:, -1:] * memory, (left[:, -1].unsqueeze(2) * k).mT, u)
    return y.transpose(0, 1).unflatten(1, (batch, heads)), after.unflatten(0, (batch, heads))


def _steps(
    query: Tensor, key: Tensor, value: Tensor, write: Tensor, log_decay: Tensor | None, memory: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """The same, step by step."""

    def reset(memory: Tensor, starts: Tensor) -> Tensor:
        return torch.where(starts.view(-1, 1, 1, 1), 0, memory)

    decays = itertools.repeat(None, len(query)) if log_decay is None else log_decay
    parts = zip(query, key, value, write, decays, strict=True)
    reads, memory = loop(lambda part, memory: delta_step(*part, memory), reset, parts, memory, starts)
    return torch.stack(reads), memory
