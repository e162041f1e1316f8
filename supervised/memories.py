"""Memories of supervised models by name: every core, and the baselines that read a whole sequence at once."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..agents.cores.registry import CORES
from ..common.checks import require_choice
from ..common.options import Option
from ..common.registry import Registry
from .attentional_lstm import AttentionalLSTM

BASELINES = Registry[nn.Module]("core", given=CORES.given)
BASELINES.register("attentional_lstm")(AttentionalLSTM)


def memories() -> tuple[str, ...]:
    """The names that ``make_memory`` knows. A user's core takes precedence over a baseline of the same name."""
    return tuple(dict.fromkeys((*CORES.names(), *BASELINES.names())))


def memory_options(name: str) -> dict[str, Option]:
    """The options of a core or a baseline, by name."""
    return _registry(name).options(name)


def make_memory(name: str, input_size: int, output_size: int | None = None, **options: Any) -> Any:
    """Build a core or a baseline, as ``make_core`` does."""
    return _registry(name).make(name, input_size, output_size, **options)


def _registry(name: str) -> Registry[Any]:
    if ":" not in name:  # else it is a core of a module of the user's
        require_choice("core", name, memories())
    return BASELINES if name in BASELINES.names() and name not in CORES.names() else CORES
