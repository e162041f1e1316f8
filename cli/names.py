"""What is listed: names, chosen by parts of them, and a sentence on each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..common.checks import unknown


def chosen(kind: str, parts: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names that are one of the parts or, where none is, hold it, in their order; all of them without parts.

    :raises ValueError: if no name holds one of the parts, naming the nearest
    """
    names, found = list(names), set[str]()
    for part in parts:
        holding = [part] if part in names else [name for name in names if part.lower() in name.lower()]
        if not holding:
            raise ValueError(unknown(kind, part, names))
        found |= set(holding)
    return [name for name in names if not parts or name in found]


def summary(text: str) -> str:
    """The first sentence of a docstring or comment, up to its colon, without the words that equations behind it begin
    with. Of what stands in parentheses, authors and year are kept."""
    text = " ".join(text.strip().split("\n\n")[0].replace("``", "").split())
    text = re.sub(r" \(([^()]*? \d{4})\b[^()]*\)", r" (\1)", text)
    text = re.sub(r" \((?![^()]* \d{4}\))[^()]*\)", "", text)
    return re.sub(r", for each [^,]*$", "", re.split(r"(?<!\bal)[.:](?: |$)", text)[0])
