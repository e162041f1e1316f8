"""Tables of text: for the terminal, and in Markdown."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

NO_TERMINAL = 200  # characters in a line where nobody sees where it ends


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as wide as the terminal, which breaks its lines within the cells. Columns of numbers end flush."""
    table = Table(box=None, pad_edge=False, header_style="none")
    for head, cells in zip(heads, zip(*rows, strict=True) if rows else [()] * len(heads), strict=True):
        numbers = any(cells) and all(not cell or cell[0].isdigit() or cell[0] in "+-" for cell in cells)
        last = head == heads[-1]
        table.add_column(head, justify="right" if numbers and not last else "left", no_wrap=not last)
    for row in rows:
        table.add_row(*map(Text, row))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else NO_TERMINAL
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whose first line are the heads."""
    head, *rows = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
