"""What the training loops share: the policy, tensors to the environments, arrays from them, a check of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor

from ..common.options import require_options
from .cores.base import State
from .policy import MemoryActorCriticPolicy


def make_policy(algorithm: BaseAlgorithm, **policy_kwargs: Any) -> MemoryActorCriticPolicy:
    """Build the policy of an algorithm.

    :raises ValueError: if it is one that our algorithms cannot train
    """
    name = type(algorithm).__name__
    if policy_kwargs.get("use_sde"):
        raise ValueError(f"{name} does not draw the noise of use_sde: leave it out of policy_kwargs")
    try:
        policy = algorithm.policy_class(
            algorithm.observation_space, algorithm.action_space, algorithm.lr_schedule, **policy_kwargs
        )
    except ValueError as error:
        if str(error).startswith("unknown core"):  # as where a model is loaded in a new process
            raise ValueError(f"{error} (A core of your own is known once its module is imported.)") from error
        raise
    if not isinstance(policy, MemoryActorCriticPolicy):
        raise ValueError(f"{name} needs a MemoryActorCriticPolicy, got {type(policy).__name__}")
    return policy


def require_setup(algorithm: Any, foreign: str) -> None:
    """Check what an algorithm was made of, as far as all have it.

    :param foreign: an argument that only the other algorithm has
    :raises ValueError: if there is no environment, the other algorithm saved what is loaded, or a number is out of
        range
    """
    name = type(algorithm).__name__
    if hasattr(algorithm, foreign):
        raise ValueError(f"{foreign} is no argument of {name}: if it came with the file, use relmem.agents.load")
    if getattr(algorithm, "observation_space", None) is None:
        raise ValueError(f"{name} needs an environment, of which its policy takes the spaces")
    for kind in ("observation_space", "action_space"):
        space = getattr(algorithm, kind)
        for part in space.spaces.values() if isinstance(space, spaces.Dict) else [space]:
            if np.any(getattr(part, "start", 0)):
                raise ValueError(
                    f"{name} counts from 0, but the {kind} has {part}: take its start off in the environment"
                )
    require_options(
        type(algorithm),
        {key: value for key, value in vars(algorithm).items() if key not in ("env", "policy", "device")},
    )


def continued_seed(algorithm: BaseAlgorithm) -> int | None:
    """The seed moves on with the steps taken, so that a training that is continued does not repeat its episodes."""
    if algorithm.seed is None or algorithm.num_timesteps == 0:
        return algorithm.seed
    return (algorithm.seed + algorithm.num_timesteps) % 2**31


def to_env(policy: MemoryActorCriticPolicy, actions: Tensor) -> np.ndarray:
    """Actions [N, ...] as the environments take them: inside the bounds of a continuous action space."""
    space = policy.action_space
    array = actions.cpu().numpy().reshape(-1, *(space.shape or ()))
    if isinstance(space, spaces.Box):
        return np.clip(array, space.low, space.high)
    return array


class Diverged(FloatingPointError):
    """A training whose loss or gradient is not finite any more: its weights are of no use."""


def act(
    policy: MemoryActorCriticPolicy, obs: Any, state: State, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor, State]:
    """``policy.act``, with a plain word where it fails because of what the environments gave."""
    try:
        return policy.act(obs, state, starts)
    except ValueError:  # torch's, about the parameters of a distribution
        for name, values in (obs if isinstance(obs, dict) else {"observation": obs}).items():
            require_finite_values(name, values)
        raise


def require_finite_values(name: str, values: Tensor | np.ndarray, environments: Sequence[int] | None = None) -> None:
    """Raise a FloatingPointError naming the environment whose row of the values [N, ...] is not finite.

    :param environments: number of the environment of each row; None: the rows are of all environments, in order
    """
    finite = torch.as_tensor(values).isfinite().reshape(len(values), -1).all(dim=1)  # [N]
    if not finite.all():
        row = int(finite.long().argmin())
        environment = row if environments is None else environments[row]
        raise FloatingPointError(f"environment {environment} gave a {name} that is not finite")


def learned_rewards(
    policy: MemoryActorCriticPolicy,
    state: State,
    rewards: np.ndarray,
    dones: np.ndarray,
    infos: list[dict[str, Any]],
    gamma: float,
    clip_reward: float | None,
) -> Tensor:
    """The rewards [N] of a step as they are learned from: clipped, and with the return that a time limit cut off.

    :param state: of the core after the step, [N, ...]
    :raises FloatingPointError: if one is not finite
    """
    if clip_reward is not None:
        rewards = rewards.clip(-clip_reward, clip_reward)
    require_finite_values("reward", rewards)
    learned = torch.as_tensor(rewards, dtype=torch.float32, device=policy.device)
    return learned + gamma * values_after_timeout(policy, state, dones, infos) if dones.any() else learned


@torch.no_grad()
def values_after_timeout(
    policy: MemoryActorCriticPolicy, state: State, dones: np.ndarray, infos: list[dict[str, Any]]
) -> Tensor:
    """Value [N] of the state in which a time limit cut an episode; zero where none did. The episode could have gone
    on, so its return is bootstrapped.

    :param state: of the core after the last step, [N, ...]
    :param dones: [N], true where an episode ended with this step
    :param infos: of this step, with the last observation of each ended episode
    """
    values = torch.zeros(len(dones), device=policy.device)
    cut = [i for i in dones.nonzero()[0].tolist() if infos[i].get("TimeLimit.truncated", False)]
    if cut:
        final = [infos[i]["terminal_observation"] for i in cut]
        stacked = (
            {k: np.stack([f[k] for f in final]) for k in final[0]} if isinstance(final[0], dict) else np.stack(final)
        )
        starts = torch.zeros(len(cut), dtype=torch.bool, device=policy.device)
        rows = type(state)(*(leaf[cut] for leaf in state))
        values[cut] = policy.value(obs_as_tensor(stacked, policy.device), rows, starts)
        if not values.isfinite().all():
            for name, last in (stacked if isinstance(stacked, dict) else {"observation": stacked}).items():
                require_finite_values(f"last {name}", last, cut)
    return values


def require_finite(loss: Tensor, gradient_norm: Tensor, **parts: Tensor) -> None:
    """Raise ``Diverged`` naming the parts of the loss unless it and its gradient are finite."""
    if not (loss.isfinite() & gradient_norm.isfinite()):
        values = ", ".join(f"{name} {part.item()}" for name, part in parts.items())
        raise Diverged(
            f"the loss is {loss.item()} ({values}), the norm of its gradient {gradient_norm.item()}: "
            "a smaller learning_rate or max_grad_norm may help"
        )
