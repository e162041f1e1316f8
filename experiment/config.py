"""The options of a run: every one of them, by its dotted name, as it was declared and as it is set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from ..common.options import Count, Option, Range, adapt, require_option
from ..common.values import shown

PRECISION = "of large matrix products; auto takes bf16 where the hardware multiplies it natively"


class Group(NamedTuple):
    """Options whose names begin with one word, such as ``core``."""

    title: str  # what they are options of
    options: dict[str, Option]


def run_options(*own: Option) -> Group:
    """What every run has, behind what only one kind has."""
    processors = Range(1, os.cpu_count() or 1, why="the machine's processors")
    common = (
        Option("seed", Annotated[int, Range(0, 2**31 - 1)], 0, "of weights, samples, actions and environments"),
        Option("device", str, "auto", "auto, cpu, cuda or cuda:N"),
        Option("precision", Literal["auto", "fp32", "bf16"], "auto", PRECISION),
        Option("track", bool, False, "show curves and options in Weights & Biases too (extra [track])"),
        Option("keep", Count, 3, "newest checkpoints that are kept, beside the best model"),
        Option("threads", Annotated[int, processors] | None, None, "threads to compute on; null is what PyTorch takes"),
    )
    return Group("the run", {option.name: option for option in (*own, *common)})


class Config:
    """All options of a run.

    :param groups: of options, by the word that their names begin with; the run's own have none
    :param values: those that are set, by their dotted names
    :raises ValueError: if one is not of its type or range
    """

    def __init__(self, groups: Mapping[str, Group], values: Mapping[str, Any]) -> None:
        self.groups = groups
        self.options = {
            f"{group}.{name}" if group else name: option
            for group, (_, options) in groups.items()
            for name, option in options.items()
        }
        self._values: dict[str, Any] = {}
        for key, option in self.options.items():
            self._values[key] = value = adapt(option.hint, values.get(key, option.default))
            if key in values:
                require_option(key, option.hint, value, shown)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def group(self, group: str) -> dict[str, Any]:
        """The options of a group by their short names, but for the name of what they belong to."""
        return {name: self[f"{group}.{name}"] for name in self.groups[group].options if name != "name"}

    def but(self, **values: Any) -> Config:
        """The same with other values, of which dots in names are written as two underscores."""
        return Config(self.groups, self._values | {key.replace("__", "."): value for key, value in values.items()})

    def flat(self) -> dict[str, Any]:
        """The values by their dotted names, without what is null because it was left open."""
        return {
            key: value
            for key, value in self._values.items()
            if value is not None or self.options[key].default is not None
        }

    def as_dict(self) -> dict[str, Any]:
        """As it is written to ``config.yaml``."""
        nested: dict[str, Any] = {}
        for key, value in self.flat().items():
            group, _, name = key.rpartition(".")
            (nested.setdefault(group, {}) if group else nested)[name] = value
        return nested
