"""V-trace (Espeholt et al. 2018): what values are to learn from actions that an earlier policy took."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class VTrace(NamedTuple):
    targets: Tensor  # [T, B], of the values
    advantages: Tensor  # [T, B], of the actions; the loss weighs them by the ratio of the policies


def vtrace(
    values: Tensor,
    last_values: Tensor,
    rewards: Tensor,
    discounts: Tensor,
    log_ratios: Tensor,
    decay: float = 1.0,
    rho_max: float = 1.0,
    c_max: float = 1.0,
) -> VTrace:
    """Targets for values, and advantages of actions, with truncated importance weights.

    Where both policies are the same, the targets are the returns of generalised advantage estimation with that decay.

    :param values: of the policy that learns, [T, B]
    :param last_values: of the observations behind the last step, [B]
    :param rewards: [T, B]
    :param discounts: [T, B], of what follows a step; zero where an episode ended with it
    :param log_ratios: [T, B], log-probability of the action now minus that when it was taken
    :param decay: lambda: of corrections from later steps
    :param rho_max: importance weights above are truncated, which decides whose values are learned
    :param c_max: likewise for the weights of later corrections, which decides how fast
    """
    ratios = log_ratios.exp()
    rhos, cs = ratios.clamp(max=rho_max), decay * ratios.clamp(max=c_max)
    deltas = rhos * (rewards + discounts * torch.cat([values[1:], last_values[None]]) - values)
    corrections, correction = torch.empty_like(values), torch.zeros_like(last_values)
    for t in reversed(range(len(values))):
        corrections[t] = correction = deltas[t] + discounts[t] * cs[t] * correction
    targets = values + corrections
    return VTrace(targets, rewards + discounts * torch.cat([targets[1:], last_values[None]]) - values)
