"""Names that must be known ones: a mistake gets one sentence that names the nearest of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LISTED = 20  # names in one message


def require_choice(kind: str, name: Any, valid: Iterable[str]) -> None:
    """Raise a ValueError naming the nearest valid name unless ``name`` is one of them."""
    valid = tuple(valid)
    if name not in valid:
        raise ValueError(unknown(kind, name, valid))


def unknown(kind: str, name: Any, valid: Iterable[Any]) -> str:
    """One sentence that says what is unknown and which valid name is nearest."""
    ranked = sorted(((_nearness(str(name), str(choice)), str(choice)) for choice in valid), key=lambda both: -both[0])
    near = [repr(choice) for score, choice in ranked if score >= max(0.5, ranked[0][0])]
    if near:
        return f"unknown {kind} '{name}': did you mean {' or '.join(near[:3])}?"
    more = len(ranked) - LISTED
    listed = ", ".join(choice for _, choice in ranked[:LISTED]) + (f" and {more} more" if more > 0 else "")
    return f"unknown {kind} '{name}': choose from {listed or 'none'}"


def _nearness(name: str, choice: str) -> float:
    """How likely one is meant by the other. Of dotted names the last part may stand alone, and may be shortened to its
    initials or its beginning, or be too long: lr, ent and n_env are learning_rate, ent_coef and env.n_envs."""
    short, last = (text.rpartition(".")[2].lower().replace("-", "_") for text in (name, choice))
    alike = max(difflib.SequenceMatcher(None, *pair).ratio() for pair in ((name, choice), (short, last)))
    if short == last:
        return 3 + alike
    if len(short) > 1 and short == "".join(word[:1] for word in last.split("_")):
        return 2.0  # whatever they stand for: lr is last_reward too
    return alike + (min(len(short), len(last)) > 1 and (last.startswith(short) or short.startswith(last)))
