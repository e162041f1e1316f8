"""What a training run is made of. The same names serve in YAML files, on the command line and in ``config.yaml``.

Types carry the valid ranges; ``cli.options`` reads them, and the ``:param:`` lines below are the command line's help.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule

from ..agents.ppo import minibatch_shape


@dataclass
class EnvConfig:
    """What environments are like. (A3C counts them among its own options, as ``envs_per_worker`` of each worker.)

    :param id: Gymnasium id: an Atari game, relmem/MaskedCartPole-v0 or any other registered environment
    :param frame_skip: emulator frames per agent step; 0, the same as 1, skips none; null is what the id says, or 4
        for Atari games and 0 elsewhere
    :param image_size: side of an Atari game's images, or [height, width]; null is 84
    :param kwargs: further arguments of an environment that is no Atari game, such as {"length": 32}
    """

    id: str = "PongNoFrameskip-v4"
    frame_skip: NonNegativeInt | None = None
    image_size: PositiveInt | list[PositiveInt] | None = None
    kwargs: dict | None = None  # not dict[str, Any], of which the parser would read "010" as a number

    def smoke(self) -> EnvConfig:
        """As few environments as there can be."""
        return self


@dataclass
class VecEnvConfig(EnvConfig):
    """Environments of PPO.

    :param n_envs: environments stepped side by side
    """

    n_envs: PositiveInt = 16

    def smoke(self) -> VecEnvConfig:
        return dataclasses.replace(self, n_envs=1)


@dataclass
class PolicyConfig:
    """What stands around the memory core.

    :param features: feature extractor: nature, a3c, small, mlp or dict; null is nature for images, dict for
        dictionaries, mlp for the rest
    :param net_arch: sizes of hidden layers between core and heads; null is none
    """

    features: str | None = None
    net_arch: list[PositiveInt] | None = None


@dataclass
class AlgorithmConfig:
    """What the options of all algorithms have in common."""

    schedules: ClassVar[tuple[str, ...]] = ()  # options that may change over the run

    name: str

    def __post_init__(self) -> None:
        self.arguments()

    def arguments(self) -> dict[str, Any]:
        """What to construct the algorithm with.

        :raises ValueError: if a schedule cannot be read
        """
        options = without_name(vars(self))
        return options | {key: schedule(f"algo.{key}", options[key]) for key in self.schedules}

    def smoke(self) -> AlgorithmConfig:
        """The same in updates as small as they can be."""
        raise NotImplementedError


@dataclass
class PPOConfig(AlgorithmConfig):
    """Recurrent PPO.

    :param learning_rate: Adam's step size: a number, or lin_NUMBER to go from that number to zero over the run
    :param n_steps: steps per environment and rollout
    :param batch_size: transitions per minibatch; null is about a quarter of the rollout
    :param bptt_length: steps that gradients travel back in time; null is n_steps
    :param n_epochs: passes over each rollout
    :param gamma: discount per step
    :param gae_lambda: decay of generalised advantage estimation
    :param clip_range: clipping of the probability ratio: a number or lin_NUMBER
    :param clip_range_vf: clipping of the change of the value: a number or lin_NUMBER; null is none
    :param normalize_advantage: bring the advantages of each minibatch to zero mean and unit variance
    :param ent_coef: weight of the entropy bonus: a number or lin_NUMBER
    :param vf_coef: weight of the value loss, in units of the returns' variance where that exceeds 1
    :param max_grad_norm: gradients are scaled down to this norm
    :param target_kl: end the passes over a rollout once the policy has moved 1.5 times this far; null is never
    :param clip_reward: learn from rewards clipped to this size; null is no clipping
    """

    schedules: ClassVar[tuple[str, ...]] = ("learning_rate", "clip_range", "clip_range_vf", "ent_coef")

    name: Literal["ppo"] = "ppo"
    learning_rate: NonNegativeFloat | str = 3e-4
    n_steps: PositiveInt = 128
    batch_size: PositiveInt | None = None
    bptt_length: PositiveInt | None = None
    n_epochs: PositiveInt = 4
    gamma: ClosedUnitInterval = 0.99
    gae_lambda: ClosedUnitInterval = 0.95
    clip_range: NonNegativeFloat | str = 0.2
    clip_range_vf: NonNegativeFloat | str | None = None
    normalize_advantage: bool = True
    ent_coef: NonNegativeFloat | str = 0.0
    vf_coef: NonNegativeFloat = 0.5
    max_grad_norm: PositiveFloat = 0.5
    target_kl: PositiveFloat | None = None
    clip_reward: PositiveFloat | None = None

    def smoke(self) -> PPOConfig:
        return dataclasses.replace(self, n_steps=min(16, self.n_steps), batch_size=None, bptt_length=None, n_epochs=1)


@dataclass
class A3CConfig(AlgorithmConfig):
    """A3C.

    :param learning_rate: step size: a number, or lin_NUMBER to go from that number to zero over the run
    :param workers: processes; null is one for each processor core
    :param envs_per_worker: environments of each worker, whose actions are computed together
    :param t_max: steps in each environment between updates, and steps that gradients travel back in time
    :param gamma: discount per step
    :param gae_lambda: decay of generalised advantage estimation
    :param ent_coef: weight of the entropy bonus: a number or lin_NUMBER
    :param vf_coef: weight of the value loss
    :param max_grad_norm: gradients are scaled down to this norm; null is never
    :param clip_reward: learn from rewards clipped to this size; null is no clipping
    :param optimizer: adam (with amsgrad and epsilon 1e-3) or rmsprop
    """

    schedules: ClassVar[tuple[str, ...]] = ("learning_rate", "ent_coef")

    name: Literal["a3c"] = "a3c"
    learning_rate: NonNegativeFloat | str = 1e-4
    workers: PositiveInt | None = None
    envs_per_worker: PositiveInt = 8
    t_max: PositiveInt = 20
    gamma: ClosedUnitInterval = 0.99
    gae_lambda: ClosedUnitInterval = 0.92
    ent_coef: NonNegativeFloat | str = 0.01
    vf_coef: NonNegativeFloat = 0.5
    max_grad_norm: PositiveFloat | None = None
    clip_reward: PositiveFloat | None = None
    optimizer: Literal["adam", "rmsprop"] = "adam"

    def smoke(self) -> A3CConfig:
        return dataclasses.replace(self, workers=1, envs_per_worker=1)


class Algorithm(NamedTuple):
    """The options that come with an algorithm."""

    options: type[AlgorithmConfig]
    env: type[EnvConfig]


ALGORITHMS = {"ppo": Algorithm(PPOConfig, VecEnvConfig), "a3c": Algorithm(A3CConfig, EnvConfig)}


@dataclass
class TrainConfig:
    """A whole run.

    :param total_timesteps: agent steps to train for, summed over environments
    :param seed: of weights, actions and environments
    :param device: auto, cpu, cuda or cuda:N
    :param precision: of the feature extractor; auto takes bf16 for nature, a3c and small where the hardware multiplies
        it natively
    """

    total_timesteps: PositiveInt = 1_000_000
    seed: NonNegativeInt = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    env: EnvConfig = field(default_factory=VecEnvConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    core: dict[str, Any] = field(default_factory=lambda: {"name": "stm"})
    algo: AlgorithmConfig = field(default_factory=PPOConfig)

    @property
    def core_kwargs(self) -> dict[str, Any]:
        """Options of the memory core, without its name."""
        return without_name(self.core)

    def as_dict(self) -> dict[str, Any]:
        """As it is written to ``config.yaml``."""
        return dataclasses.asdict(self)

    def smoke(self) -> TrainConfig:
        """The same run cut down to a few seconds.

        :raises ValueError: if the run itself could not be cut into minibatches
        """
        if isinstance(self.algo, PPOConfig) and isinstance(self.env, VecEnvConfig):
            minibatch_shape(self.algo.n_steps, self.env.n_envs, self.algo.bptt_length, self.algo.batch_size)
        return dataclasses.replace(self, env=self.env.smoke(), algo=self.algo.smoke(), total_timesteps=64)


def without_name(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of what ``name`` says."""
    return {key: value for key, value in options.items() if key != "name"}


def schedule(name: str, value: float | str | None) -> float | Schedule | None:
    """The number, or the schedule that a string such as ``lin_2.5e-4`` stands for; None stays None.

    :raises ValueError: if it is neither, negative or not finite
    """
    if value is None:
        return None
    try:
        number = float(str(value).removeprefix("lin_"))
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be a number of at least 0 or a schedule such as lin_2.5e-4, got {value!r}")
    return LinearSchedule(number, 0.0, 1.0) if str(value).startswith("lin_") else number
