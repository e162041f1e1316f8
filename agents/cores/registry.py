"""Memory cores by name: ``make_core("stm", input_size=512)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...common.options import Option, options_of
from ...common.registry import Registry
from .blocks import in_layers
from .core import MemoryCore

SIZES = ("input_size", "output_size")


class CoreRegistry(Registry[MemoryCore]):
    """Cores by name, each of which can be put into layers: a core has the options of ``in_layers`` beside its own, and
    keeps its own where one has the same name."""

    layer_options = options_of(in_layers, skip=("make", *SIZES))

    def options(self, name: str) -> dict[str, Option]:
        own = super().options(name)
        return own | {key: option for key, option in self.layer_options.items() if key not in own}

    def make(self, name: str, /, *given: Any, **options: Any) -> MemoryCore:
        own = super().options(name)
        layers = {key: options.pop(key) for key in self.layer_options if key in options and key not in own}
        make_one = super().make
        return in_layers(lambda *sizes: make_one(name, *sizes, **options), *given, **layers)


CORES = CoreRegistry("core", given=SIZES)


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
    """The options of a core, by name, as its constructor and ``in_layers`` declare them.

    :raises ValueError: if the core is unknown
    """
    return CORES.options(name)


def make_core(name: str, input_size: int, output_size: int | None = None, **options: Any) -> MemoryCore:
    """Build a core.

    :param name: one of ``registered_cores()``
    :param input_size: number of input features
    :param output_size: number of output features; None: the core's natural width
    :param options: the core's own options, and those that all cores have: ``layers``, the number of such cores in a
        row, and ``residual``, whether each of them stands in a residual block
    :raises ValueError: for an unknown core or option (naming the nearest valid one) or an option out of range
    """
    return CORES.make(name, input_size, output_size, **options)
