"""Memory cores by name: ``make_core("stm", input_size=512)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...common.options import Option
from ...common.registry import Registry
from .core import MemoryCore

CORES = Registry[MemoryCore]("core", given=("input_size", "output_size"))


def register_core(name: str) -> Callable[[Callable[..., MemoryCore]], Callable[..., MemoryCore]]:
    """Class decorator (or decorator of a factory) that makes a core available to ``make_core`` under ``name``.

    Its constructor takes ``(input_size, output_size=None, **options)`` and must work with an input size alone.

    :raises ValueError: if the name is taken by another core
    """
    return CORES.register(name)


def registered_cores() -> tuple[str, ...]:
    """The names that ``make_core`` knows."""
    return CORES.names()


def core_options(name: str) -> dict[str, Option]:
    """The options of a core, by name, as its constructor declares them.

    :raises ValueError: if the core is unknown
    """
    return CORES.options(name)


def make_core(name: str, input_size: int, output_size: int | None = None, **options: Any) -> MemoryCore:
    """Build a core.

    :param name: one of ``registered_cores()``
    :param input_size: number of input features
    :param output_size: number of output features; None: the core's natural width
    :param options: the core's own options
    :raises ValueError: for an unknown core or option (naming the nearest valid one) or an option out of range
    """
    return CORES.make(name, input_size, output_size, **options)
