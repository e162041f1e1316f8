"""How MemoryPPO and A3C are set up: their options, their policy, their seed."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from ..common.options import require_options
from .policy import MemoryActorCriticPolicy
from .schedule import as_schedule

# By which files of version 0.1, which do not name their algorithm, are told apart: an argument that only it has.
MARKS = {"bptt_length": "MemoryPPO", "envs_per_worker": "A3C"}
LEFT_TO_SB3 = ("env", "verbose", "tensorboard_log")


def require_setup(algorithm: Any, kind: type[BaseAlgorithm]) -> None:
    """Check what an algorithm was made of, or loaded with.

    :param kind: the class that declares its options
    :raises ValueError: if there is no environment, another algorithm saved what is loaded, or an option is out of range
    """
    if algorithm.algorithm != kind.__name__ or vars(algorithm).keys() >= {*MARKS}:  # what is loaded comes on top
        raise ValueError(f"{kind.__name__} cannot load what another algorithm saved: use relmem.agents.load")
    if getattr(algorithm, "observation_space", None) is None:
        raise ValueError(f"{kind.__name__} needs an environment, of which its policy takes the spaces")
    require_options(kind, {name: value for name, value in vars(algorithm).items() if name not in LEFT_TO_SB3})


def set_up_policy(algorithm: Any, **policy_kwargs: Any) -> None:
    """Give an algorithm its schedule, its seed and its policy.

    :raises ValueError: if the policy is one that our algorithms cannot train
    """
    name = type(algorithm).__name__
    if policy_kwargs.get("use_sde"):
        raise ValueError(f"{name} does not draw the noise of use_sde: leave it out of policy_kwargs")
    algorithm.lr_schedule = as_schedule(algorithm.learning_rate)
    algorithm.set_random_seed(continued_seed(algorithm))
    spaces = algorithm.observation_space, algorithm.action_space
    policy = algorithm.policy_class(*spaces, algorithm.lr_schedule, **policy_kwargs).to(algorithm.device)
    if not isinstance(policy, MemoryActorCriticPolicy):
        raise ValueError(f"{name} needs a MemoryActorCriticPolicy, got {type(policy).__name__}")
    policy.set_precision(algorithm.precision)
    algorithm.policy = policy


def continued_seed(algorithm: BaseAlgorithm) -> int | None:
    """The seed moves on with the steps taken, so that a training that is continued does not repeat its episodes."""
    if algorithm.seed is None or algorithm.num_timesteps == 0:
        return algorithm.seed
    return (algorithm.seed + algorithm.num_timesteps) % 2**31
