"""Options, declared once: in the signature and the docstring of the class or function that they belong to.

    def __init__(self, n_steps: Count = 128, gamma: Fraction = 0.99, learning_rate: Rate = 3e-4): ...

A class calls ``require_options`` to hold its arguments to that declaration; the command line reads it for its flags,
its help and its checks.
"""

from __future__ import annotations

import inspect
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import docstring_parser

from .checks import unknown

LINEAR = "lin_"  # then a number: from that number to zero over the training
SEQUENCES = (list, tuple, Sequence)  # one hint is as good as the other: YAML knows lists alone
WORDS: dict[Any, str] = {
    **{str: "text", int: "an integer", float: "a number", bool: "true or false", dict: "a mapping"},
    **{None: "null", types.NoneType: "null"},
}


@dataclass(frozen=True)
class Range:
    """The numbers that an option may have, for ``Annotated``.

    :param low: the least
    :param high: the greatest
    :param above: whether ``low`` itself is too low
    :param why: where the limits come from, where that is not plain
    """

    low: float
    high: float = math.inf
    above: bool = False
    why: str = ""

    def __contains__(self, number: float) -> bool:
        return (self.low < number if self.above else self.low <= number) and number <= self.high

    def __str__(self) -> str:
        if self.high < math.inf:
            words = f"{'above' if self.above else 'from'} {self.low:.10g} to {self.high:.10g}"
        else:
            words = f"{'above' if self.above else 'of at least'} {self.low:.10g}"
        return words + (self.why and f" ({self.why})")


@dataclass(frozen=True)
class Form:
    """The texts that an option may have, for ``Annotated``.

    :param pattern: a regular expression that the whole text matches
    :param words: what such a text looks like
    """

    pattern: str
    words: str

    def __contains__(self, text: str) -> bool:
        return re.fullmatch(self.pattern, text) is not None


Import = Annotated[str, Form(r"[\w.]+:\w+", "module:name")]
"""Something of the user's own, in a module."""

Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]

Schedule = Callable[[float], float]
"""A number as a function of the remaining progress, which goes from 1 to 0; or in text, ``lin_3e-4``."""
Rate = Annotated[float | Schedule, Range(0)]
PositiveRate = Annotated[float | Schedule, Range(0, above=True)]


class Option(NamedTuple):
    """One option of a class or function."""

    name: str
    hint: Any  # its type
    default: Any
    help: str


def options_of(source: Callable[..., Any], skip: Iterable[str] = ()) -> dict[str, Option]:
    """The parameters of a class or function as options, by name.

    :param skip: parameters that are no options
    """
    others = getattr(source, "options_from", None)
    docs = {name: option.help for name, option in options_of(others).items()} if others else {}
    for place in reversed(getattr(source, "__mro__", (source,))):
        parsed = docstring_parser.parse(place.__doc__ or "")
        docs.update({p.arg_name: " ".join((p.description or "").split()) for p in parsed.params})
    return {
        p.name: Option(p.name, Any if p.annotation is p.empty else p.annotation, p.default, docs.get(p.name, ""))
        for p in inspect.signature(source, eval_str=True).parameters.values()
        if p.name not in skip
    }


def takes_options_of(source: Callable[..., Any], optional: bool = False) -> Callable[[Any], Any]:
    """Decorate a class or function: its signature spells out what its ``**options`` stand for, the options of another
    class or function, whose docstring explains them.

    :param optional: whether each of these may be left open, as None, which then is its default
    """

    def decorator(target: Any) -> Any:
        own = inspect.signature(target, eval_str=True).parameters
        parameters = [p for p in own.values() if p.kind is not p.VAR_KEYWORD]
        for p in inspect.signature(source, eval_str=True).parameters.values():
            if p.name not in own:
                changed = {"annotation": p.annotation | None, "default": None} if optional else {}
                parameters.append(p.replace(kind=p.KEYWORD_ONLY, **changed))
        target.__signature__, target.options_from = inspect.Signature(parameters), source
        return target

    return decorator


def require_options(source: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Hold arguments to their declaration.

    :param source: the class or function that declares them
    :param values: arguments by name, such as ``locals()`` at the beginning of a constructor; others are passed over
    :raises ValueError: naming the first that is not of its type or range
    """
    for name, option in options_of(source).items():
        if name in values:
            require_option(name, option.hint, values[name])


def require_option(name: str, hint: Any, value: Any, show: Callable[[Any], str] = repr) -> None:
    """Raise a ValueError, which shows the value, unless it is of a type and in its range."""
    if not fits(hint, value):
        choices = [choice for member in _members(hint) if get_origin(member) is Literal for choice in get_args(member)]
        if isinstance(value, str) and choices:
            raise ValueError(unknown(name, value, choices))
        raise ValueError(f"{name} must be {describe(hint)}, got {show(value)}")


def fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a type, and in its range if it has one. Numbers are finite. Numbers and one-dimensional
    arrays of NumPy are as good as those of Python."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        number = _number(value)
        ranges = [limit for limit in args[1:] if isinstance(limit, Range)]
        forms = [form for form in args[1:] if isinstance(form, Form)]
        if not fits(args[0], value) or any(value not in form for form in forms):
            return False
        return math.isnan(number) or all(number in limit for limit in ranges)
    if origin in (Union, types.UnionType):
        return any(fits(member, value) for member in args)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in args)
    if hint is Any:
        return True
    if hint is None or hint is types.NoneType:
        return value is None
    if hint is int or hint is float:
        kind = Integral if hint is int else Real
        return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if hint == Schedule:
        return callable(value) or (str(value).startswith(LINEAR) and math.isfinite(_number(value)))
    if origin in SEQUENCES:
        if isinstance(value, str) or (not isinstance(value, Sequence) and getattr(value, "ndim", 0) != 1):
            return False
        if origin is tuple and Ellipsis not in args:
            return len(value) == len(args) and all(map(fits, args, value))
        return all(fits(args[0], item) for item in value)
    kind = origin or hint
    if kind is dict and args and isinstance(value, dict):
        return all(fits(args[0], key) and fits(args[1], item) for key, item in value.items())
    return isinstance(value, kind) if isinstance(kind, type) else True


def adapt(hint: Any, value: Any) -> Any:
    """A value as read from text, in the form that its type has: 1e6 as the integer that it is where one is asked for,
    inside of lists too. What does not fit is left as it is."""
    if fits(hint, value):
        return value
    if isinstance(value, list):
        items = [get_args(member)[0] for member in _members(hint) if get_origin(member) in SEQUENCES]
        return [adapt(items[0], item) for item in value] if items else value
    if isinstance(value, dict):
        items = [get_args(member)[1] for member in _members(hint) if get_origin(member) is dict]
        return {key: adapt(items[0], item) for key, item in value.items()} if items else value
    if isinstance(value, float) and value.is_integer() and fits(hint, int(value)):
        return int(value)
    return value


def describe(hint: Any) -> str:
    """A type in plain words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = " ".join(str(limit) for limit in args[1:] if isinstance(limit, Range))
        for form in args[1:]:
            if isinstance(form, Form):
                return form.words
        if Schedule in get_args(args[0]):
            return f"a number {limits}, or a schedule such as lin_3e-4"
        return f"{describe(args[0])} {limits}".strip()
    if origin in (Union, types.UnionType):
        return " or ".join(describe(member) for member in args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin is tuple and Ellipsis not in args:
        return f"{len(args)} values in a list, each {describe(args[0])}"
    if origin in SEQUENCES:
        return f"a list such as [64, 64], each of it {describe(args[0])}"
    if origin is dict and args[1:] != (Any,):
        return f"a mapping to {describe(args[1])}"
    return WORDS.get(origin or hint, str(getattr(hint, "__name__", hint)))


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _number(value: Any) -> float:
    """The number in a number or in the text of a schedule; NaN where there is none."""
    try:
        return float(value.removeprefix(LINEAR) if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return math.nan
