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
    heads, reads = query.shape[2], []
    memory = state.flatten(0, 1)  # [B * H, k, v]
    for cut in (slice(begin, begin + chunk) for begin in range(0, len(query), chunk)):
        q, k, v, beta = (part[cut].flatten(1, 2).transpose(0, 1) for part in (query, key, value, write.unsqueeze(3)))
        episode = starts[cut].T.repeat_interleave(heads, 0).cumsum(1)  # [B * H, C]; the others are [B * H, C, ...]
        within = (episode.unsqueeze(2) == episode.unsqueeze(1)).tril()  # τ is of the episode of t [B * H, t, τ]
        begun = episode.unsqueeze(2) > 0  # in this chunk, so with a memory of zeros [B * H, C, 1]
        similarity, attention, of_memory = torch.bmm(k, k.mT), torch.bmm(q, k.mT), k
        if log_decay is not None:
            left, origin = _left(log_decay[cut].flatten(1).T, within)
            similarity, attention, of_memory = similarity * left, attention * left, origin * k
            q, k = origin * q, k * left[:, -1].unsqueeze(2)
        # All that would relate an episode to another is selected away, so that neither values nor gradients pass.
        system = torch.where(within, beta * similarity, 0)
        solved = torch.linalg.solve_triangular(
            system, beta * torch.cat([v, of_memory], dim=2), upper=False, unitriangular=True
        )
        written, erasing = solved.split([v.shape[2], k.shape[2]], dim=2)
        erased = torch.where(begun, 0, torch.bmm(torch.where(begun, 0, erasing), memory))  # U = written - erased
        attention = torch.where(within, attention, 0)
        old = torch.bmm(torch.where(begun, 0, q), memory) - torch.bmm(attention, erased)
        y = torch.where(begun, 0, old) + torch.bmm(attention, written)  # [B * H, C, v]
        reads.append(y.transpose(0, 1).unflatten(1, (-1, heads)))

        lost = begun[:, -1:]  # what was before the chunk
        kept = memory if log_decay is None else torch.where(lost, 1, origin[:, -1:]) * memory
        written = written - torch.where(lost, 0, erased)
        k = torch.where(within[:, -1].unsqueeze(2), k, 0)
        memory = torch.baddbmm(torch.where(lost, 0, kept), k.mT, written)
    return torch.cat(reads), memory.unflatten(0, (-1, heads))


def _left(log_decay: Tensor, within: Tensor) -> tuple[Tensor, Tensor]:
    """What decay leaves: at step t of what step τ <= t wrote [B, t, τ], and at step t of the memory before the chunk
    or, where an episode began, before that [B, t, 1]."""
    # Sums of what lies between, not differences of sums from the beginning, in which small decays would drown.
    later = torch.ones_like(within[0]).tril(-1)
    left = torch.where(later, log_decay.unsqueeze(2), 0).cumsum(1).exp()
    origin = torch.where(within, log_decay.unsqueeze(1), 0).sum(2, keepdim=True).exp()
    return left, origin
