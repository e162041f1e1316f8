"""Arguments of the commands that work on what there is already: positional ones, flags and ``env.*`` overrides."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from ..common.checks import unknown


class Arguments(argparse.ArgumentParser):
    """An ``argparse`` parser as every command of ours uses it: a mistake is a ``ValueError`` of one sentence that names
    the nearest flag, flags are not abbreviated, and ``examples`` stand below the help.

    :param command: the command's name
    :param description: what it does, in a sentence
    :param examples: command lines as one would type them
    """

    def __init__(self, command: str, description: str, examples: Sequence[str]) -> None:
        width = min(110, shutil.get_terminal_size().columns)
        super().__init__(
            prog=f"relmem {command}",
            description=textwrap.fill(description, width),
            epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=32, width=width),
            allow_abbrev=False,
        )

    def read(self, argv: Sequence[str], others: Sequence[str] = ()) -> argparse.Namespace:
        """Parse a command line.

        :param others: names of flags that there are beside the command's own
        :raises ValueError: for whatever is wrong with it
        """
        known, rest = self.parse_known_args(list(argv))
        self._refuse(rest, others)
        return known

    def read_with_overrides(
        self, argv: Sequence[str], groups: Sequence[str], alone: Sequence[str] = (), several: bool = False
    ) -> tuple[argparse.Namespace, dict[str, list[str]]]:
        """Parse a command line that may hold options of a training beside the command's own.

        :param groups: prefixes of those options, such as ``("env",)``
        :param alone: those that have no prefix
        :param several: whether they take all words up to the next flag, instead of one
        :return: the command's arguments, and the words behind each ``--group.name`` or ``--name``
        :raises ValueError: for whatever is wrong with it
        """
        own: list[str] = []
        overrides: dict[str, list[str]] = {}
        rest = list(argv)
        while rest:
            token = rest.pop(0)
            name, equals, text = token.removeprefix("--").partition("=")
            if not token.startswith("--") or (name not in alone and name.partition(".")[0] not in groups):
                own.append(token)
                continue
            if name in overrides:
                raise ValueError(f"--{name} is there twice")
            words = overrides[name] = [text] if equals else []
            while rest and not rest[0].startswith("--") and not equals and (several or not words):
                words.append(rest.pop(0))
            if not words:
                raise ValueError(f"--{name} needs a value")
        return self.read(own, alone), overrides

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog}: {message}")

    def _refuse(self, rest: Sequence[str], others: Sequence[str]) -> None:
        flags = [
            flag.removeprefix("--")
            for action in self._actions
            for flag in action.option_strings
            if flag.startswith("--")
        ]
        for token in rest:
            if token.startswith("-"):
                raise ValueError(
                    unknown(f"option of {self.prog}", token.lstrip("-").partition("=")[0], [*flags, *others])
                )
            raise ValueError(f"unrecognized argument '{token}' of {self.prog}")
