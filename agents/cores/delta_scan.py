"""Memories of matrices that are written by the delta rule: one step, and many at once.

The memory S [k, v] maps keys to values. The delta rule (Widrow and Hoff 1960; as an update of fast weights Schlag,
Irie and Schmidhuber 2021) replaces what a key recalls by a new value, to the degree β; the gated one (Yang, Kautz and
Hatamizadeh 2025) lets all of the memory decay before:

    S_t = α_t S_{t-1} + k_t u_tᵀ,   u_t = β_t (v_t - (α_t S_{t-1})ᵀ k_t),   y_t = S_tᵀ q_t

A chunk of C steps is linear in the memory S before it. With the decay γ_t from before the chunk to step t, and L_tτ
from step τ to t, the u of the chunk solve one triangular system (the WY form of Yang et al. 2024, "Parallelizing linear
transformers with the delta rule over sequence length"):

    (1 + β ∘ tril(K Kᵀ ∘ L, -1)) U = β ∘ V - (β γ ∘ K) S

What was before a reset is multiplied by zero: ``unless_ruined`` makes a core's ``sequence`` exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scan import chunks


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
    reads = []
    for part in chunks(starts, chunk, query.dim()):
        q, k, v, beta = (part.of(tensor) for tensor in (query, key, value, write.unsqueeze(-1)))  # [B, H, C, ...]
        left, of_origin = part.together.to(q.dtype), q.new_ones(1, 1)
        if log_decay is not None:
            log_alpha = part.of(log_decay.unsqueeze(-1))  # [B, H, C, 1]
            # Sums of what lies between, not differences of sums from the beginning, in which small decays would drown.
            left = left * torch.where(part.later, log_alpha, 0).cumsum(-2).exp()  # [B, H, t, τ]
            of_origin = log_alpha.cumsum(-2).exp()
        written = beta * k
        known = beta * v - (torch.where(part.begun, 0, of_origin) * written) @ state
        system = (written @ k.mT) * left  # of which only what is below the diagonal counts
        u = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)  # [B, H, C, v]
        read, state = part.attend(q, k, u, left, of_origin, state)
        reads.append(read)
    return torch.cat(reads), state


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
    reads = []
    for part in chunks(starts, chunk, query.dim()):
        q, k, v, kappa, a, log_w = (part.of(tensor) for tensor in (query, key, value, erase, take, log_decay))
        left = part.together.to(q.dtype)  # [B, 1, t, τ]
        # With what a step erases, e_t = S_{t-1}ᵀ κ_t, all writes of the chunk are known: S_t is the decayed memory from
        # before and the sum of k_τ v_τᵀ - (a_τ ∘ κ_τ) e_τᵀ, decayed since; and the e solve a triangular system. Reads
        # are multiplied by the decay from before the chunk, or the episode, to a step, and writes divided by it.
        total = left @ log_w  # its logarithm [B, H, C, k]
        q, erasing, grown = total.exp() * q, (total - log_w).exp() * kappa, (-total).exp()
        k, taken = grown * k, grown * a * kappa
        system = (erasing @ taken.mT) * left  # of which only what is below the diagonal counts
        known = torch.where(part.begun, 0, erasing) @ state + ((erasing @ k.mT) * left).tril(-1) @ v
        e = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)  # [B, H, C, v]
        k, v, left = torch.cat([k, taken], dim=-2), torch.cat([v, -e], dim=-2), torch.cat([left, left], dim=-1)
        read, state = part.attend(q, k, v, left, q.new_ones(1, 1), state)
        state = state * total[..., -1:, :].exp().mT
        reads.append(read)
    return torch.cat(reads), state
