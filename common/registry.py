"""Things of one kind by name, each with its options: memory cores, tasks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from .checks import require_choice
from .imports import own_module
from .options import Option, options_of, require_option

T = TypeVar("T")


class Registry(Generic[T]):
    """Factories (classes or functions) by name.

    :param kind: what is registered, in one word, for error messages
    :param given: parameters that are no options: those that every factory of this kind is called with
    """

    def __init__(self, kind: str, given: Sequence[str] = ()) -> None:
        self.kind, self.given = kind, tuple(given)
        self._factories: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Any], Any]:
        """Decorator of a factory. The same factory may come again, as where a notebook cell is run twice.

        :raises ValueError: if the name is taken by another one, or an option has no name of its own or no default
        """

        if not isinstance(name, str):
            raise ValueError(f'a {self.kind} needs a name: @register_{self.kind}("name")')

        def decorator(factory: Any) -> Any:
            parameters = inspect.signature(factory).parameters
            if tuple(parameters)[: len(self.given)] != self.given:
                raise ValueError(f"{self.kind} '{name}' must take {' and '.join(self.given)} before its options")
            for parameter in parameters.values():
                if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    raise ValueError(
                        f"{self.kind} '{name}' must name its options one by one, instead of taking '{parameter}'"
                    )
                if parameter.name not in self.given and parameter.default is parameter.empty:
                    raise ValueError(f"option '{parameter.name}' of {self.kind} '{name}' must have a default")
            taken: Any = self._factories.get(name, factory)
            if (taken.__module__, taken.__qualname__) != (factory.__module__, factory.__qualname__):
                raise ValueError(f"a {self.kind} named '{name}' is registered already")
            self._factories[name] = factory
            return factory

        return decorator

    def names(self) -> tuple[str, ...]:
        """Of everything registered, in that order."""
        return tuple(self._factories)

    def factory(self, name: str) -> Callable[..., T]:
        """What is registered under ``name``, or under the name behind the colon in ``module:name``, after the import of
        that module.

        :raises ValueError: if the name is unknown, or the module cannot be imported
        """
        module, colon, short = str(name).rpartition(":")
        if colon:
            own_module(module, f"{self.kind} '{name}'", f", and register the {self.kind} '{short}'")
        of_module = f" of module '{module}'" if colon else ""
        require_choice(f"{self.kind}{of_module}", short, self._factories)
        return self._factories[short]

    def options(self, name: str) -> dict[str, Option]:
        """The options of a factory, by name.

        :raises ValueError: if the name is unknown
        """
        return options_of(self.factory(name), skip=self.given)

    def make(self, name: str, /, *given: Any, **options: Any) -> T:
        """Call a factory.

        :raises ValueError: for an unknown name or option, naming the nearest valid one, or an option out of range
        """
        known = self.options(name)
        for option in options:
            require_choice(f"option of {self.kind} '{name}'", option, known)
            require_option(option, known[option].hint, options[option])
        return self.factory(name)(*given, **options)
