"""Names of games and environments, and sizes of images."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from ale_py import roms

from ..common.options import Count

ImageSize = Count | tuple[Count, Count]
"""The side of square images, or (height, width)."""


def require_rom(game: str) -> None:
    """Raise a ValueError unless ALE knows the game and its ROM file is there."""
    games = roms.get_all_rom_ids()
    if game not in games:
        raise ValueError(f"unknown Atari game '{game}': did you mean '{nearest(game, games)}'?")
    try:
        roms.get_rom_path(game)
    except OSError as error:
        raise ValueError(f"the ROM of the Atari game '{game}' cannot be read: {error}") from error


def image_shape(size: ImageSize) -> tuple[int, int]:
    """(height, width) of images."""
    height, width = size if isinstance(size, Sequence) else (size, size)
    return int(height), int(width)


def nearest(name: str, valid: Iterable[str], cutoff: float = 0.0) -> str:
    """The valid name that looks most like ``name``, whatever the case of its letters.

    :param cutoff: from 0, anything, to 1, the same; where nothing is so much alike, "" is returned
    """
    by_lower_case = {candidate.lower(): candidate for candidate in valid}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=cutoff)
    return by_lower_case[close[0]] if close else ""
