"""RMT and ARMT written once more from their papers: one sequence, one segment, one token and one head at a time."""

import itertools
import math

import torch
from torch import Tensor

EPSILON = 1e-5


def naive_rmt_sequence(core, x: Tensor, starts: Tensor) -> Tensor:
    """From the initial state: x [T, B, F], starts [T, B] -> features [T, B, D]."""
    p, memory = dict(core.named_parameters()), list(core.memory)
    columns = []
    for b in range(x.shape[1]):
        column = []
        for segments in _episodes(core.segment, x[:, b], starts[:, b]):
            kept = memory
            for segment in segments:
                tokens = [m + place for m, place in zip(kept, p["read_places"], strict=True)]
                tokens += _embedded(p, segment)
                column += _transformer(p, core, tokens)[len(kept) :]
                if len(segment) == core.segment:
                    tokens += [m + place for m, place in zip(kept, p["write_places"], strict=True)]
                    kept = _transformer(p, core, tokens)[-len(kept) :]
        columns.append(torch.stack(column))
    return torch.stack(columns, dim=1)


def naive_armt_sequence(core, x: Tensor, starts: Tensor) -> Tensor:
    """From the initial state: x [T, B, F], starts [T, B] -> features [T, B, D]."""
    p = dict(core.named_parameters())
    columns = []
    for b in range(x.shape[1]):
        column = []
        for segments in _episodes(core.segment, x[:, b], starts[:, b]):
            pairs = [[] for _ in core.layers]  # of each layer: (φ(k), what is written to it, γ)
            for segment in segments:
                tokens = _embedded(p, segment)
                column += _transformer(p, core, tokens, pairs)
                if len(segment) == core.segment:
                    written = []
                    _transformer(p, core, [*tokens, *core.memory], pairs, written)
                    for layer, of_layer in enumerate(written):
                        name = f"associations.{layer}"
                        new = []
                        for token in of_layer[-len(core.memory) :]:
                            key = _features(p[f"{name}.key.weight"] @ token)
                            known = sum(gamma * (old @ key) for old, _, gamma in pairs[layer])
                            gamma = torch.as_tensor(1 - known / (key @ key + EPSILON)).clamp(0, 1)
                            strength = p[f"{name}.strength.weight"][0] @ token + p[f"{name}.strength.bias"][0]
                            change = p[f"{name}.value.weight"] @ token - _recalled(pairs[layer], key)
                            new.append((key, change / (1 + torch.exp(-strength)), gamma))
                        pairs[layer] = pairs[layer] + new
        columns.append(torch.stack(column))
    return torch.stack(columns, dim=1)


def _episodes(length: int, x: Tensor, starts: Tensor):
    """The segments of each episode, each a list of inputs [F]."""
    bounds = [0, *(t for t in range(1, len(x)) if starts[t]), len(x)]
    for begin, end in itertools.pairwise(bounds):
        yield [list(x[at : min(at + length, end)]) for at in range(begin, end, length)]


def _embedded(p: dict[str, Tensor], segment: list[Tensor]) -> list[Tensor]:
    weight, bias = p["embedding.weight"], p["embedding.bias"]
    return [weight @ x + bias + place for x, place in zip(segment, p["places"], strict=False)]


def _transformer(p, core, tokens, pairs=None, written=None) -> list[Tensor]:
    """A causal transformer over all of a segment's tokens [D] -> its outputs [D].

    :param pairs: what the associative memory of each layer holds, where there is one
    :param written: takes the outputs of each layer
    """
    for layer in range(len(core.layers)):
        name = f"layers.{layer}"
        if pairs is not None:
            query = p[f"associations.{layer}.query.weight"]
            tokens = [token + _recalled(pairs[layer], _features(query @ token)) for token in tokens]
        normal = [_normal(p, f"{name}.norm", token) for token in tokens]
        size = len(tokens[0]) // core.layers[layer].heads
        outputs = []
        for t, token in enumerate(tokens):
            found = []
            for h in range(core.layers[layer].heads):
                q, k, v = (p[f"{name}.{kind}.weight"][h * size : (h + 1) * size] for kind in ("query", "key", "value"))
                weights = [((q @ normal[t]) @ (k @ normal[s]) / math.sqrt(size)).exp() for s in range(t + 1)]
                found.append(sum(w * (v @ normal[s]) for s, w in enumerate(weights)) / sum(weights))
            token = token + p[f"{name}.merge.weight"] @ torch.cat(found)
            u = p[f"{name}.mlp.0.weight"] @ _normal(p, f"{name}.mlp_norm", token) + p[f"{name}.mlp.0.bias"]
            u = 0.5 * u * (1 + torch.erf(u / math.sqrt(2)))
            outputs.append(token + p[f"{name}.mlp.2.weight"] @ u + p[f"{name}.mlp.2.bias"])
        tokens = outputs
        if written is not None:
            written.append(tokens)
    return [_normal(p, "norm", token) for token in tokens]


def _normal(p: dict[str, Tensor], name: str, u: Tensor) -> Tensor:
    return (u - u.mean()) / torch.sqrt(((u - u.mean()) ** 2).mean() + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def _features(u: Tensor) -> Tensor:
    signed = [*(max(number, 0 * number) for number in u), *(max(-number, 0 * number) for number in u)]
    return torch.stack([signed[i] * signed[i - shift] for shift in (1, 2, 3) for i in range(len(signed))])


def _recalled(pairs, key: Tensor):
    """What all pairs together answer to a key."""
    found = sum((old @ key) * value for old, value, _ in pairs)
    return found / (sum(gamma * (old @ key) for old, _, gamma in pairs) + EPSILON)
