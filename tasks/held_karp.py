"""Shortest tours by dynamic programming over subsets (Held & Karp 1962), a whole batch at a time."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor


class Layer(NamedTuple):
    """The states after k cities. A state is a set of k cities, city 0 left out, and which of them was visited last."""

    last: Tensor  # int64 [n_states]
    before: Tensor  # the states of the layer before that may lead here, int64 [n_states, max(k - 1, 1)]


def shortest_tour(distance: Tensor) -> Tensor:
    """The shortest closed tour from city 0, in one of its two directions.

    :param distance: symmetric, float [B, N, N], N at least 3
    :return: the cities in order, int64 [B, N], beginning with 0
    """
    first, *others = layers(distance.shape[1], distance.device)
    distance = distance.permute(1, 2, 0).contiguous()  # [N, N, B]
    cost = distance[0, first.last]  # of the best way to each state: [n_states, B]
    choices, last = [], first.last
    for layer in others:
        through = cost[layer.before] + distance[last[layer.before], layer.last[:, None]]  # [n_states, k - 1, B]
        cost, choice = through.min(dim=1)
        choices.append(choice)
        last = layer.last

    state = (cost + distance[last, 0]).argmin(dim=0)  # [B]
    columns = torch.arange(len(state), device=state.device)
    order = []
    for layer, choice in zip(reversed(others), reversed(choices), strict=True):
        order.append(layer.last[state])
        state = layer.before[state, choice[state, columns]]
    order += [first.last[state], torch.zeros_like(state)]
    return torch.stack(order[::-1], dim=1)


@cache
def layers(n_cities: int, device: torch.device) -> list[Layer]:
    """The layers of 1 to N - 1 cities."""
    found, numbers = [], {(frozenset[int](), 0): 0}
    for k in range(1, n_cities):
        states = [(frozenset(cities), last) for cities in combinations(range(1, n_cities), k) for last in cities]
        last = [city for _, city in states]
        before = [
            [numbers[rest, city] for city in rest or {0}] for rest in (cities - {city} for cities, city in states)
        ]
        found.append(Layer(torch.tensor(last, device=device), torch.tensor(before, device=device)))
        numbers = {state: number for number, state in enumerate(states)}
    return found
