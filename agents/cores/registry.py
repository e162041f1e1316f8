"""Memory cores by name: ``make_core("stm", input_size=512)``."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from .base import MemoryCore

_CORES: dict[str, Callable[..., MemoryCore]] = {}


def register_core(name: str) -> Callable[[Callable[..., MemoryCore]], Callable[..., MemoryCore]]:
    """Class decorator (or decorator of a factory) that makes a core available to ``make_core`` under ``name``.

    Its constructor takes ``(input_size, output_size=None, **options)`` and must work with an input size alone.

    :raises ValueError: if the name is taken by another core
    """

    def decorator(factory: Callable[..., MemoryCore]) -> Callable[..., MemoryCore]:
        taken = _CORES.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (factory.__module__, factory.__qualname__):
            raise ValueError(f"a core named '{name}' is registered already")
        _CORES[name] = factory
        return factory

    return decorator


def registered_cores() -> tuple[str, ...]:
    """The names that ``make_core`` knows."""
    return tuple(_CORES)


def core_factory(name: str) -> Callable[..., MemoryCore]:
    """The class or function registered under ``name``.

    :raises ValueError: if the core is unknown
    """
    if name not in _CORES:
        raise ValueError(unknown("core", name, _CORES))
    return _CORES[name]


def core_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a core, by name, as the parameters of its constructor.

    :raises ValueError: if the core is unknown
    """
    parameters = inspect.signature(core_factory(name)).parameters
    return {key: p for key, p in parameters.items() if key not in ("input_size", "output_size")}


def make_core(name: str, input_size: int, output_size: int | None = None, **options: Any) -> MemoryCore:
    """Build a core.

    :param name: one of ``registered_cores()``
    :param input_size: number of input features
    :param output_size: number of output features; None: the core's natural width
    :param options: the core's own options
    :raises ValueError: for an unknown core or option (naming the nearest valid one) or an option out of range
    """
    known = core_options(name)
    for option in options:
        if option not in known:
            raise ValueError(unknown(f"option of core '{name}'", option, known))
    return _CORES[name](input_size, output_size, **options)


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """One sentence that says what is unknown and which valid name is nearest."""
    valid = list(valid)
    nearest = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"choose from {', '.join(valid) or 'none'}"
    return f"unknown {kind} '{name}': {hint}"
