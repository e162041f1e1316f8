"""Memories of matrices that are written by the delta rule: one step, and many at once.

The memory S [k, v] maps keys to values. The delta rule (Widrow and Hoff 1960; as a fast weight update Schlag, Irie and
Schmidhuber 2021) replaces what a key recalls by a new value, to the degree β; the gated one (Yang, Kautz and Hatamizadeh
2025) lets all of the memory decay before:

    S_t = α_t S_{t-1} + k_t u_tᵀ,   u_t = β_t (v_t - (α_t S_{t-1})ᵀ k_t),   y_t = S_tᵀ q_t

A chunk of C steps is linear in the memory S before it. With the decay γ_t from before the chunk to step t, and L_tτ from
step τ to t, the u of the chunk solve one triangular system (the WY form of Yang et al. 2024, "Parallelizing linear
transformers with the delta rule over sequence length"):

    (1 + β ∘ tril(K Kᵀ ∘ L, -1)) U = β ∘ V - (β γ ∘ K) S
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    chunk: int = 64,
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
    heads, reads = query.shape[2], []
    memory = state.flatten(0, 1)  # [B * H, k, v]
    for cut in (slice(begin, begin + chunk) for begin in range(0, len(query), chunk)):
        q, k, v, beta = (part[cut].flatten(1, 2).transpose(0, 1) for part in (query, key, value, write.unsqueeze(3)))
        episode = starts[cut].T.repeat_interleave(heads, 0).cumsum(1)  # [B * H, C]; the others are [B * H, C, ...]
        within = (episode.unsqueeze(2) == episode.unsqueeze(1)).tril()  # [B * H, t, τ]
        left, origin = _left(None if log_decay is None else log_decay[cut].flatten(1).T, within, q.dtype)

        system = (beta * torch.bmm(k, k.mT) * left).tril(-1)
        solved = torch.linalg.solve_triangular(
            system, beta * torch.cat([v, origin * k], dim=2), upper=False, unitriangular=True
        )
        # What is written of the values, and what is taken back of the memory before the episode.
        written, erased = solved.split([v.shape[2], k.shape[2]], dim=2)
        attention = torch.bmm(q, k.mT) * left
        begun = episode.unsqueeze(2) > 0  # in this chunk, so with a memory of zeros [B * H, C, 1]
        # What a query reads of the memory before the chunk. Where an episode has begun, it has no gradient either.
        of_memory = torch.where(begun, 0, origin * q - torch.bmm(attention, erased))
        old = torch.where(begun, 0, torch.bmm(of_memory, memory))
        reads.append((old + torch.bmm(attention, written)).transpose(0, 1).unflatten(1, (-1, heads)))

        last = (k * left[:, -1].unsqueeze(2)).mT  # [B * H, k, C]
        kept = origin[:, -1:] * torch.eye(k.shape[2], dtype=k.dtype, device=k.device) - torch.bmm(last, erased)
        begun = begun[:, -1:]
        old = torch.where(begun, 0, torch.bmm(torch.where(begun, 0, kept), memory))
        memory = old + torch.bmm(last, written)
    return torch.cat(reads), memory.unflatten(0, (-1, heads))


def _left(log_decay: Tensor | None, within: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What decay leaves: at step t of what step τ wrote, for the pairs within an episode [B, t, τ], and at step t of the
    memory before the episode [B, t, 1]."""
    if log_decay is None:
        left = within.to(dtype)
        return left, torch.ones_like(left[:, :, :1])
    ones = torch.ones_like(within[0])
    # Sums of what lies between, not differences of sums from the beginning, in which small decays would drown.
    between = torch.where(ones.tril(-1), log_decay.unsqueeze(2), 0).cumsum(1)
    left = torch.where(within, between.exp(), 0)
    origin = torch.where(within, log_decay.unsqueeze(1), 0).sum(2, keepdim=True).exp()
    return left, origin
