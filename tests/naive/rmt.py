"""RMT and ARMT written once more from their papers: one sequence, one token and one head at a time."""

import math

import torch
from torch import Tensor

from tests.naive.rows import affine, mean_of, normal, sigmoid

EPSILON = 1e-5


def naive_rmt(p: dict[str, Tensor], core, x: Tensor, leaves: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of one sequence: x [F], memory [m, D], what layers have read [L, m + k, D], steps of the segment [1]."""
    memory, context, length = leaves
    count = round(length.item())
    read = [list(rows[: len(memory) + count]) for rows in context]
    tokens = _transformer(p, core, [affine(p, "embedding", x) + p["places"][count]], read)
    if count + 1 == len(p["places"]):
        places = p["write_places"]
        memory = torch.stack(_transformer(p, core, [m + place for m, place in zip(memory, places, strict=True)], read))
        return tokens[0], _opened(p, core, memory)
    return tokens[0], [memory, _as_context(read, context), torch.full_like(length, count + 1)]


def memory_tokens(p: dict[str, Tensor], core, leaves: list[Tensor]) -> list[Tensor]:
    return _opened(p, core, p["memory"])


def _opened(p, core, memory: Tensor) -> list[Tensor]:
    """A segment begins with these memory tokens [m, D]."""
    read = [[] for _ in core.layers]
    _transformer(p, core, [m + place for m, place in zip(memory, p["read_places"], strict=True)], read)
    width = memory.shape[1]
    context = memory.new_zeros(len(read), len(memory) + len(p["places"]), width)
    return [memory, _as_context(read, context), memory.new_zeros(1)]


def naive_armt(p: dict[str, Tensor], core, x: Tensor, leaves: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of one sequence: x [F], A [L, K, D], z [L, K], what layers have read [L, k, D], steps of the segment
    [1]. A and z are taken apart into what was written to them: keys φ, and the values and shares γ of these."""
    association, normaliser, context, length = leaves
    count = round(length.item())
    pairs = []
    for a, z in zip(association, normaliser, strict=True):
        pairs.append([(unit, row, share) for unit, row, share in zip(torch.eye(len(z)).to(z), a, z, strict=True)])
    read = [list(rows[:count]) for rows in context]
    tokens = _transformer(p, core, [affine(p, "embedding", x) + p["places"][count]], read, pairs)
    if count + 1 < len(p["places"]):
        return tokens[0], [association, normaliser, _as_context(read, context), torch.full_like(length, count + 1)]
    written = []
    _transformer(p, core, list(p["memory"]), read, pairs, written)
    for layer, of_layer in enumerate(written):
        name, new = f"associations.{layer}", []
        for token in of_layer:
            key = _features(p[f"{name}.key.weight"] @ token)
            known = sum(gamma * (old @ key) for old, _, gamma in pairs[layer])
            gamma = (1 - known / (key @ key + EPSILON)).clamp(0, 1)
            change = p[f"{name}.value.weight"] @ token - _recalled(pairs[layer], key)
            new.append((key, change * sigmoid(affine(p, f"{name}.strength", token)), gamma))
        pairs[layer] = pairs[layer] + new
    association = torch.stack([sum(key[:, None] * value for key, value, _ in of_layer) for of_layer in pairs])
    normaliser = torch.stack([sum(gamma * key for key, _, gamma in of_layer) for of_layer in pairs])
    return tokens[0], [association, normaliser, torch.zeros_like(context), torch.zeros_like(length)]


def _as_context(read: list[list[Tensor]], context: Tensor) -> Tensor:
    """What layers have read, in the place of what was there."""
    return torch.stack([torch.stack([*rows, *old[len(rows) :]]) for rows, old in zip(read, context, strict=True)])


def _transformer(p, core, tokens, read, pairs=None, written=None) -> list[Tensor]:
    """A causal transformer over more tokens [D] of a segment -> its outputs [D].

    :param read: what each layer has read of the segment, to which the tokens are added
    :param pairs: what the associative memory of each layer holds, where there is one
    :param written: takes the outputs of each layer
    """
    for layer in range(len(core.layers)):
        name, heads = f"layers.{layer}", core.layers[layer].heads
        size, outputs = len(tokens[0]) // heads, []
        for token in tokens:
            if pairs is not None:
                query = p[f"associations.{layer}.query.weight"] @ token
                token = token + _recalled(pairs[layer], _features(query))
            read[layer].append(token)
            rows, found = [normal(p, f"{name}.norm", row) for row in read[layer]], []
            for h in range(heads):
                q, k, v = (p[f"{name}.{kind}.weight"][h * size : (h + 1) * size] for kind in ("query", "key", "value"))
                logits = [(q @ rows[-1]) @ (k @ row) / math.sqrt(size) for row in rows]
                found.append(mean_of([v @ row for row in rows], logits))
            token = token + p[f"{name}.merge.weight"] @ torch.cat(found)
            u = affine(p, f"{name}.mlp.0", normal(p, f"{name}.mlp_norm", token))
            outputs.append(token + affine(p, f"{name}.mlp.2", 0.5 * u * (1 + torch.erf(u / math.sqrt(2)))))
        tokens = outputs
        if written is not None:
            written.append(tokens)
    return [normal(p, "norm", token) for token in tokens]


def _features(u: Tensor) -> Tensor:
    signed = [*(max(number, 0 * number) for number in u), *(max(-number, 0 * number) for number in u)]
    n = len(signed)
    return torch.stack([signed[i] * signed[(i - shift) % n] for shift in (1, 2, 3) for i in range(n)])


def _recalled(pairs, key: Tensor) -> Tensor:
    """What all pairs together answer to a key."""
    found = sum((old @ key) * value for old, value, _ in pairs)
    return found / (sum(gamma * (old @ key) for old, _, gamma in pairs) + EPSILON)
