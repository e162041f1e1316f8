"""V-trace against the sum that defines it, and against generalised advantage estimation."""

import pytest
import torch

from relmem.agents.vtrace import vtrace

T, B, GAMMA = 9, 3, 0.9


def numbers():
    torch.manual_seed(0)
    values, rewards, log_ratios = (torch.randn(T, B, dtype=torch.float64) for _ in range(3))
    alive = torch.rand(T, B) > 0.2
    return values, torch.randn(B, dtype=torch.float64), rewards, GAMMA * alive.double(), log_ratios


def by_definition(values, last_values, rewards, discounts, log_ratios, decay, rho_max, c_max):
    """Each target as the sum over all later steps, each with the product of all weights between."""
    following = torch.cat([values, last_values[None]])
    targets = torch.zeros(T, B, dtype=torch.float64)
    for b in range(B):
        for s in range(T):
            total = values[s, b].item()
            for t in range(s, T):
                weight = 1.0
                for i in range(s, t):
                    weight *= discounts[i, b].item() * decay * min(c_max, log_ratios[i, b].exp().item())
                rho = min(rho_max, log_ratios[t, b].exp().item())
                delta = rho * (rewards[t, b] + discounts[t, b] * following[t + 1, b] - values[t, b]).item()
                total += weight * delta
            targets[s, b] = total
    next_targets = torch.cat([targets[1:], last_values[None]])
    return targets, rewards + discounts * next_targets - values


@pytest.mark.parametrize(("decay", "rho_max", "c_max"), [(1.0, 1.0, 1.0), (0.8, 1.5, 0.7), (0.0, 0.5, 1.0)])
def test_it_is_the_sum_that_defines_it(decay, rho_max, c_max):
    given = numbers()
    for got, expected in zip(
        vtrace(*given, decay, rho_max, c_max), by_definition(*given, decay, rho_max, c_max), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_with_one_policy_its_targets_are_the_returns_of_gae(decay):
    values, last_values, rewards, discounts, log_ratios = numbers()
    targets, _ = vtrace(values, last_values, rewards, discounts, torch.zeros_like(log_ratios), decay)
    advantage, following = torch.zeros(B), last_values
    for t in reversed(range(T)):
        advantage = rewards[t] + discounts[t] * following - values[t] + discounts[t] * decay * advantage
        torch.testing.assert_close(targets[t], values[t] + advantage, rtol=0, atol=1e-12)
        following = values[t]


def test_huge_ratios_are_truncated():
    values, last_values, rewards, discounts, log_ratios = numbers()
    assert all(
        part.isfinite().all() for part in vtrace(values, last_values, rewards, discounts, 1e4 * log_ratios.abs())
    )
