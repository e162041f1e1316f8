"""What a part of the campaign found, and the table of all parts."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

HEAD = (
    "| part | faults | survived | equal to the bit to an unbroken run | work lost at most | corrupted | worst message |"
    " commit |\n|---|---:|---:|---:|---|---:|---|---|\n"
)


@dataclass
class Tally:
    """Faults of one kind, and what became of them. A fault is survived if the run goes on or can be taken up, or the
    bad input is refused in one sentence; corrupted is what was used although it was damaged."""

    part: str
    faults: int = 0
    survived: int = 0
    corrupted: int = 0
    lost: str = "-"  # at most
    worst: str = ""
    seconds: float = 0.0
    commit: str = ""
    compared: int = 0  # with an unbroken run, and found equal to the bit
    failures: list[str] = field(default_factory=list)

    def count(self, survived: bool, message: str = "", corrupted: bool = False) -> None:
        """Take in one fault.

        :param message: what was said about it
        """
        self.faults += 1
        self.survived += survived and not corrupted
        self.corrupted += corrupted
        if not survived or corrupted:
            self.failures.append(message)
            self.worst = message
        elif not self.failures and len(message) > len(self.worst):
            self.worst = message

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def as_markdown(tallies: list[Tally]) -> str:
    """The table of all parts."""
    rows = [
        f"| {t.part} | {t.faults:,} | {t.survived:,} | {t.compared or '-'} | {t.lost} | {t.corrupted} | "
        f"{_short(t.worst)} | {t.commit} |\n"
        for t in tallies
    ]
    return HEAD + "".join(rows)


def _short(message: str) -> str:
    """A message in one line of the table, without the folder that it was in."""
    return re.sub(r"\S*faults_\w+/", "", " ".join(message.split()))[:160].replace("|", "/")
