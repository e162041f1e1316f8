"""The losses of PPO (Schulman et al. 2017), for its own advantages or V-trace's."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Settings(NamedTuple):
    """What a loss is made with, at a point of the training."""

    clip_range: float
    clip_range_vf: float | None
    ent_coef: float
    vf_coef: float  # per variance of the returns


class Loss(NamedTuple):
    """The loss, its summands and what else is measured of a minibatch, or of a part of one; named as SB3's log does."""

    loss: Tensor
    policy_gradient_loss: Tensor
    value_loss: Tensor
    entropy_loss: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor

    @property
    def parts(self) -> dict[str, Tensor]:
        """The summands, and then their sum, by name."""
        return {name: getattr(self, name) for name in ("policy_gradient_loss", "value_loss", "entropy_loss", "loss")}


def no_loss(device: torch.device) -> Loss:
    """Of a policy that computes nothing finite: NaN in all parts, without a gradient."""
    return Loss(*torch.full((len(Loss._fields),), math.nan, device=device))


def ppo_loss(
    settings: Settings,
    whole: int,
    evaluated: tuple[Tensor, Tensor, Tensor | None],
    old_values: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
) -> Loss:
    """What a part of a minibatch adds to its means. All tensors are [L, S].

    :param whole: transitions in the whole minibatch
    :param evaluated: values, log-probabilities and entropies (None where there is no closed form) as they are now
    :param old_values: as estimated when the actions were taken; of use where ``clip_range_vf`` is set
    :param old_log_probs: likewise
    """
    values, log_prob, entropy = evaluated
    log_ratio = log_prob - old_log_probs
    ratio = log_ratio.exp()
    clip = settings.clip_range
    policy_loss = -torch.min(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip)).sum() / whole
    if (clip_vf := settings.clip_range_vf) is not None:
        values = old_values + (values - old_values).clamp(-clip_vf, clip_vf)
    value_loss = F.mse_loss(values, returns, reduction="sum") / whole
    entropy_loss = (log_prob if entropy is None else -entropy).sum() / whole
    with torch.no_grad():
        approx_kl = (ratio - 1 - log_ratio).sum() / whole
        clip_fraction = ((ratio - 1).abs() > clip).sum() / whole
    loss = policy_loss + settings.ent_coef * entropy_loss + settings.vf_coef * value_loss
    return Loss(loss, policy_loss, value_loss, entropy_loss, approx_kl, clip_fraction)
