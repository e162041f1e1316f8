"""Checks of arguments: each failure is one sentence that names what would be valid."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Integral
from typing import Any

LISTED = 20  # names in one message


def require_at_least(low: int, why: str = "", /, **values: Any) -> None:
    """Raise a ValueError naming the first of the values that is no integer of at least ``low``.

    :param why: where the limit comes from, where that is not plain
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
            raise ValueError(f"{name} must be an integer of at least {low}{why and f' ({why})'}, got {value!r}")


def require_at_most(high: int, why: str = "", /, **values: int) -> None:
    """Raise a ValueError naming the first of the values that is above ``high``."""
    for name, value in values.items():
        if value > high:
            raise ValueError(f"{name} must be at most {high}{why and f' ({why})'}, got {value}")


def require_choice(kind: str, name: Any, valid: Iterable[str]) -> None:
    """Raise a ValueError naming the nearest valid name unless ``name`` is one of them."""
    valid = tuple(valid)
    if name not in valid:
        raise ValueError(unknown(kind, name, valid))


def unknown(kind: str, name: Any, valid: Iterable[str]) -> str:
    """One sentence that says what is unknown and which valid name is nearest."""
    ranked = sorted(((_nearness(str(name), choice), choice) for choice in valid), key=lambda both: -both[0])
    near = [choice for score, choice in ranked if score >= max(0.5, ranked[0][0])]
    if near:
        return f"unknown {kind} '{name}': did you mean {' or '.join(repr(choice) for choice in near[:3])}?"
    return f"unknown {kind} '{name}': choose from {_listed([choice for _, choice in ranked])}"


def _nearness(name: str, choice: str) -> float:
    """How likely one is meant by the other. Of dotted names the last part may stand alone, and may be shortened to its
    beginning, its initials or a few of its letters: lr, ent and n_env are learning_rate, ent_coef and env.n_envs."""
    short, last = (text.rpartition(".")[2].lower().replace("-", "_") for text in (name, choice))
    alike = max(difflib.SequenceMatcher(None, name, choice).ratio(), difflib.SequenceMatcher(None, short, last).ratio())
    if short == last:
        return 3 + alike
    if len(short) > 1 and short == "".join(word[:1] for word in last.split("_")):
        return 2 + alike
    if len(short) > 1 and last.startswith(short):
        return 1 + alike
    letters = iter(last)
    shortened = len(short) > 1 and short[0] == last[:1] and all(letter in letters for letter in short)
    return max(alike, 0.5 if shortened else 0)


def _listed(names: list[str]) -> str:
    """All of a short list, the first of a long one."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "") or "none"
