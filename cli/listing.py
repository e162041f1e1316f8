"""What the commands that list things have in common: names, chosen by parts of them, as a table or for scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..common.checks import unknown
from ..common.output import say
from .arguments import Arguments


def listing(
    parser: Arguments,
    argv: Sequence[str],
    kind: str,
    names: Callable[[], Iterable[str]],
    facts: Callable[[str], dict[str, Any]],
    table: Callable[[list[dict[str, Any]]], str],
) -> Callable[[], int]:
    """A command that lists things.

    :param kind: what one of them is called
    :param names: of all there are
    :param facts: what there is to know of one, for scripts
    :param table: makes the text to read of all the facts
    :raises ValueError: if the command line asks for something impossible
    """
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one {kind}, or a part of names; default: all")
    parser.add_argument("--json", action="store_true", help="for scripts")
    args = parser.read(argv)
    found = chosen(kind, args.names, names())

    def show() -> int:
        known = [facts(name) for name in found]
        say(json.dumps(known, indent=1) if args.json else table(known))
        return 0

    return show


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
