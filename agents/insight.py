"""What goes on inside of an agent: its memory, gates, value and action probabilities at an observation, the numerical
rank of what it holds, and the past steps that its decisions depend on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..common.options import Count, require_option
from .policy import Halves, MemoryActorCriticPolicy
from .spaces import map_obs


class Insight(NamedTuple):
    """What a policy computes at one observation of one environment."""

    state: dict[str, np.ndarray]  # leaves of the memory, as the observation left them
    gates: dict[str, np.ndarray]  # that it passed on the way, each in (0, 1)
    value: float
    probabilities: list[np.ndarray]  # of actions that are chosen: for each choice [A]
    mean: np.ndarray | None  # of actions that are numbers [A]
    deviation: np.ndarray | None  # of these [A]


@torch.no_grad()
def look(
    policy: MemoryActorCriticPolicy,
    obs: Any,
    state: Sequence[np.ndarray] | None,
    start: bool,
    action_masks: np.ndarray | None = None,
) -> Insight:
    """Look into a policy at an observation. It is left as it was.

    :param obs: of one environment [1, ...], as ``predict`` takes it
    :param state: what ``predict`` returned before; None: an episode begins
    :param start: whether an episode begins with the observation
    :param action_masks: [1, M], which actions are allowed; None: all are
    """
    starts = torch.tensor([start or state is None], device=policy.device)
    masks = None if action_masks is None else torch.as_tensor(action_masks, device=policy.device)
    with _playing(policy):
        features = policy._features(policy.obs_to_tensor(obs)[0])  # [1, F]
        before = policy.core.reset(as_state(policy, state), starts)
        gates = policy.core.gates(features, before)
        outputs, after = policy.core(features.unsqueeze(0), before, torch.zeros_like(starts).unsqueeze(0))
        latent = policy._read_by_heads(outputs[0], features)
        value = float(policy._values(latent)[0])
        actions: Any = policy._distribution(latent, masks)
    distribution = getattr(actions, "distributions", None) or actions.distribution  # several ones of masked parts
    probabilities, mean, deviation = [], None, None
    if isinstance(distribution, torch.distributions.Normal):
        mean, deviation = _array(distribution.mean), _array(distribution.stddev)
    elif isinstance(distribution, torch.distributions.Bernoulli):
        probabilities = [np.array([1 - p, p]) for p in _array(distribution.probs)]
    else:
        each = distribution if isinstance(distribution, list) else [distribution]
        probabilities = [_array(choice.probs) for choice in each]
    leaves = {name: _array(leaf) for name, leaf in after._asdict().items()}
    found = {name: _array(gate) for name, gate in gates.items()}
    return Insight(leaves, found, value, probabilities, mean, deviation)


@contextmanager
def _playing(policy: MemoryActorCriticPolicy) -> Iterator[None]:
    """Let dropout and BatchNorm be as they are at play; afterwards they are as they were."""
    training = policy.training
    policy.set_training_mode(False)
    try:
        yield
    finally:
        policy.set_training_mode(training)


def as_state(policy: MemoryActorCriticPolicy, state: Sequence[np.ndarray] | None) -> Any:
    """The structured state of what ``predict`` returned for one environment; None: the initial one."""
    if state is None:
        return policy.initial_state(1)
    halves: Halves = tuple(torch.as_tensor(half, dtype=torch.float32, device=policy.device) for half in state)
    return policy.from_halves(halves)


def saliency(
    policy: MemoryActorCriticPolicy,
    observations: Sequence[Any],
    state: Sequence[np.ndarray] | None,
    starts: Sequence[bool],
    every: Count = 1,
    probes: Count = 4,
) -> np.ndarray:
    """Which past steps a decision depends on: for decisions t and steps s, the size of the gradient of what the policy
    puts out at t (logits, or means) with respect to the features of observation s: [decisions, T], zero for s > t.

    The size is the Frobenius norm of that Jacobian, estimated from random directions of the output.

    :param observations: T of one environment, each [1, ...], as ``predict`` takes them
    :param state: of the memory before the first of them, as ``predict`` returned it; None: an episode begins
    :param starts: [T], whether an episode begins with an observation
    :param every: decisions that are looked at: the last of every so many steps, from the end
    :param probes: number of directions; where the output has no more dimensions than that, the norm is exact
    :raises ValueError: if there are no observations, or not as many starts
    """
    require_option("every", Count, every)
    require_option("probes", Count, probes)
    if not observations or len(observations) != len(starts):
        raise ValueError(f"saliency needs as many observations as starts, got {len(observations)} and {len(starts)}")
    stacked = map_obs(lambda *parts: np.concatenate([np.asarray(part) for part in parts]), *observations)
    begins = torch.tensor([[bool(start)] for start in starts], device=policy.device)
    begins[0] |= state is None
    with _playing(policy):
        with torch.no_grad():
            features = policy._features(policy.obs_to_tensor(stacked)[0]).unsqueeze(1)  # [T, 1, F]
        features.requires_grad_()
        with torch.backends.cudnn.flags(enabled=False):  # whose recurrences have no gradients in evaluation mode
            outputs, _ = policy.core(features, as_state(policy, state), begins)
        latent = policy._read_by_heads(outputs, features)[:, 0]  # [T, D]
        decisions = policy.action_net(policy.mlp_extractor.forward_actor(latent))  # [T, A]
    directions = _directions(decisions.shape[1], probes).to(decisions)  # [P, A]
    steps = range(len(starts) - 1, -1, -every)[::-1]
    rows = []
    for t in steps:
        square = torch.zeros(len(starts), device=policy.device)
        for direction in directions:
            (gradient,) = torch.autograd.grad(decisions[t] @ direction, features, retain_graph=True)
            square += gradient[:, 0].square().sum(1)
        rows.append(square.sqrt().cpu().numpy())
    return np.stack(rows)


def _directions(n: int, probes: int) -> Tensor:
    """Directions [P, n] whose squared projections sum to the squared norm, exactly or on average."""
    if n <= probes:
        return torch.eye(n)
    random = torch.randn(n, probes, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(random)[0].T * (n / probes) ** 0.5


def numerical_rank(matrix: np.ndarray) -> float:
    """The numerical rank ‖A‖²_F / ‖A‖²_2 of a matrix (Rudelson and Vershynin 2007), from 1 to its rank; 0 of
    zeros, NaN of what is not finite."""
    if not np.isfinite(matrix).all():
        return math.nan
    largest = float(np.linalg.norm(matrix, 2))
    return float(np.square(matrix / largest).sum()) if largest > 0 else 0.0


def relational_ranks(core: nn.Module) -> dict[str, tuple[float, int]]:
    """The numerical rank of G2 of each STM in a core, and how large it can be, by the name of its weight: how much of
    the relations the read-out distils (table 8 of the STM paper, https://arxiv.org/abs/2002.03519)."""
    weights = {name: p for name, p in core.named_parameters() if name.endswith("relation_readout.weight")}
    return {name: (numerical_rank(p.detach().cpu().numpy()), min(p.shape)) for name, p in weights.items()}


def _array(tensor: Tensor) -> np.ndarray:
    """Row 0 of a tensor."""
    return tensor.detach()[0].float().cpu().numpy()
