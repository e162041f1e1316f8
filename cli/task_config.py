"""What a supervised training on a task is made of, as ``cli.config`` for environments."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from .config import schedule, without_name


@dataclass
class HeadConfig:
    """What stands around the memory core.

    :param embedding_size: width of a linear map before the core, for one-hot tokens; null is none
    :param net_arch: sizes of hidden ReLU layers between core and logits; null is none
    """

    embedding_size: PositiveInt | None = None
    net_arch: list[PositiveInt] | None = None


@dataclass
class TrainingConfig:
    """How the model is fitted.

    :param optimizer: rmsprop or adam
    :param learning_rate: a number, or lin_NUMBER to go from that number to zero over the run
    :param batch_size: samples per update
    :param alpha: RMSprop's decay of the mean square of gradients
    :param momentum: RMSprop's
    :param max_grad_value: each element of a gradient is clipped to this size; null is never
    :param max_grad_norm: gradients are scaled down to this norm; null is never
    :param eval_every: updates between evaluations; null is an epoch, or 500 where batches are drawn afresh
    :param eval_size: samples of the validation set that are looked at; null is all
    :param stop_at: the training ends when the task's metric reaches this on the validation set; null is never
    """

    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    learning_rate: NonNegativeFloat | str = 1e-4
    batch_size: PositiveInt = 128
    alpha: ClosedUnitInterval = 0.95
    momentum: ClosedUnitInterval = 0.9
    max_grad_value: PositiveFloat | None = 10.0
    max_grad_norm: PositiveFloat | None = None
    eval_every: PositiveInt | None = None
    eval_size: PositiveInt | None = None
    stop_at: NonNegativeFloat | None = None

    def __post_init__(self) -> None:
        self.arguments()

    def arguments(self) -> dict[str, Any]:
        """What to construct the trainer with.

        :raises ValueError: if a schedule cannot be read
        """
        return vars(self) | {"learning_rate": schedule("training.learning_rate", self.learning_rate)}

    def smoke(self) -> TrainingConfig:
        """The same in updates as small as they can be."""
        return dataclasses.replace(self, batch_size=min(4, self.batch_size), eval_every=None, eval_size=4)


@dataclass
class TaskTrainConfig:
    """A whole run on a task.

    :param total_updates: gradient steps to train for
    :param max_minutes: the training ends after this time, evaluations included; null is never
    :param seed: of weights and of training samples, or of their order where a set of them is fixed; validation and test
        sets are the same for all seeds
    :param device: auto, cpu, cuda or cuda:N
    :param precision: of the large matrix products of stm and rmc; auto takes bf16 where the hardware multiplies it
        natively
    """

    total_updates: PositiveInt = 50_000
    max_minutes: PositiveFloat | None = None
    seed: NonNegativeInt = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    task: dict[str, Any] = field(default_factory=dict)
    head: HeadConfig = field(default_factory=HeadConfig)
    core: dict[str, Any] = field(default_factory=lambda: {"name": "stm"})
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @property
    def core_kwargs(self) -> dict[str, Any]:
        """Options of the memory core, without its name."""
        return without_name(self.core)

    @property
    def task_kwargs(self) -> dict[str, Any]:
        """Options of the task, without its name."""
        return without_name(self.task)

    def as_dict(self) -> dict[str, Any]:
        """As it is written to ``config.yaml``."""
        return dataclasses.asdict(self)

    def smoke(self) -> TaskTrainConfig:
        """The same run cut down to a few seconds."""
        return dataclasses.replace(self, training=self.training.smoke(), total_updates=2)
