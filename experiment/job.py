"""What the two kinds of training share."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any, Literal

from ..common.options import Option
from .config import Config, Group
from .folder import RunFolder

TITLE_WIDTH = 75  # characters that fit in a picture


class Job:
    """What a run prepares, executes and finishes: the training of an agent, or of a model on a task.

    :param config: the run's options
    :param smoke: cut it down to a few seconds, to see whether it works
    """

    def __init__(self, config: Config, smoke: bool = False) -> None:
        self.config, self.smoke = self.cut(config) if smoke else config, smoke

    def cut(self, config: Config) -> Config:
        """The same run in a few small updates."""
        raise NotImplementedError

    @property
    def names(self) -> list[str]:
        """What it is trained on, what is trained, and how."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Of the run, for its folder: ``pong_stm_ppo_s0``."""
        return "_".join([*self.names, f"s{self.config['seed']}"]).replace(":", ".")

    def title(self, what: str, folder: RunFolder) -> str:
        """Of its picture."""
        names = ", ".join([what, *self.names[1:], f"seed {self.config['seed']}"])
        return textwrap.fill(f"{names} ({folder.path.name})", TITLE_WIDTH)


def named(title: str, chosen: str, known: Iterable[str], options: dict[str, Option]) -> Group:
    """The options of something that is chosen by its name."""
    choices: Any = Literal[tuple(dict.fromkeys((*known, chosen)))]
    return Group(f"{title} '{chosen}'", {"name": Option("name", choices, chosen, "which one")} | options)
