"""What the two kinds of training share."""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from ..common.options import Option
from ..common.output import stage
from .config import Config, Group
from .folder import RunFolder
from .provenance import processor
from .stop import StopRequest

TITLE_WIDTH = 75  # characters that fit in a picture


class Job(ABC):
    """What a run prepares, executes and finishes: the training of an agent, or of a model on a task.

    :param config: the run's options
    :param smoke: cut it down to a few seconds, to see whether it works
    :param trusted: whether a checkpoint may be loaded that could run code
    """

    kind: ClassVar[str]
    subject: ClassVar[str]  # the option that says what it is trained on
    ending: ClassVar[str]  # of the files that hold what was trained
    unit: ClassVar[str]  # of the training's length
    total: ClassVar[str]  # the option that gives the length
    may_change: ClassVar[tuple[str, ...]]  # options that need not stay the same when a run goes on
    tested: ClassVar[str]  # the part of results.json that says how it did in the end
    learner: Any  # the algorithm or trainer, once it is prepared

    evaluated: Callable[[int, float], None] | None = None
    """Where it is set, called after each evaluation while it trains, with how long it has trained, in ``unit``, and the
    score."""

    def __init__(self, config: Config, smoke: bool = False, trusted: bool = False) -> None:
        self.config, self.smoke, self.trusted = self.cut(config) if smoke else config, smoke, trusted

    @abstractmethod
    def cut(self, config: Config) -> Config:
        """The same run in a few small updates."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """What it is trained on, what is trained, and how."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """What is trained."""

    @property
    @abstractmethod
    def done(self) -> int:
        """How long it has been trained, in ``unit``."""

    @abstractmethod
    def prepare(self, checkpoint: Path | None) -> None:
        """Build everything, anew or as it was saved.

        :raises ValueError: if options do not go with each other or with the checkpoint, or are too large
        """

    def close(self) -> None:  # noqa: B027  (most have nothing to let go of)
        """Let go of the processes that ``prepare`` started."""

    @abstractmethod
    def plan(self) -> str:
        """What an update learns from, in words."""

    @abstractmethod
    def outcome(self) -> str | None:
        """Why the training is over; None while it is not."""

    @abstractmethod
    def execute(self, folder: RunFolder, stop: StopRequest) -> None:
        """Train until it is over or a stop is asked for."""

    @abstractmethod
    def test(self, stop: StopRequest) -> dict[str, Any] | None:
        """Test what was trained, for ``results.json``. None where that is left for later."""

    @abstractmethod
    def draw(self, path: Path, title: str, tested: dict[str, Any] | None) -> None:
        """Draw the learning curve, with the result of the test."""

    @property
    @abstractmethod
    def higher_is_better(self) -> bool:
        """Whether high scores are good ones."""

    @abstractmethod
    def score(self, results: dict[str, Any]) -> float | None:
        """What a run is judged by, of its ``results.json``; None where it has none."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What there is to know without a test, for ``results.json``."""

    @property
    def name(self) -> str:
        """Of the run, for its folder: ``pong_stm_ppo_s0``."""
        return "_".join([*self.names, f"s{self.config['seed']}"]).replace(":", ".")

    def facts(self) -> dict[str, Any]:
        """What the results of all runs say."""
        device = self.learner.device
        return {
            "kind": self.kind,
            "config": self.config.as_dict(),
            "seed": self.config["seed"],
            "core": self.config["core.name"],
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
            "threads": torch.get_num_threads(),
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
        }

    def is_over(self, results: dict[str, Any]) -> bool:
        """Whether nothing is left to do, neither by the model nor by what ``results.json`` holds."""
        found = results.get(self.tested)
        return (
            self.outcome() is not None
            and results.get("outcome") == self.outcome()
            and bool(found and found.get("complete", True))
        )

    def finish(self, folder: RunFolder, stop: StopRequest) -> None:
        """Test what was trained, draw its curve, and write down what there is to know."""
        tested = self.test(stop)
        title = ", ".join([self.config[self.subject], *self.names[1:], f"seed {self.config['seed']}"])
        with stage("drawing the learning curve"), folder.attempt("learning_curve.png"):
            self.draw(folder.curve, textwrap.fill(f"{title} ({folder.path.name})", TITLE_WIDTH), tested)
        folder.write_results(self.facts() | self.describe() | {self.tested: tested})


def named(title: str, chosen: str, known: Iterable[str], options: dict[str, Option]) -> Group:
    """The options of something that is chosen by its name."""
    choices: Any = Literal[tuple(dict.fromkeys((*known, chosen)))]
    return Group(f"{title} '{chosen}'", {"name": Option("name", choices, chosen, "which one")} | options)
