"""Checks of games and image sizes: each failure is one sentence that names what would be valid."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Integral

from ale_py import roms

from ..common.checks import require_at_least


def require_rom(game: str) -> None:
    """Raise a ValueError unless ALE knows the game and its ROM file is there."""
    games = roms.get_all_rom_ids()
    if game not in games:
        raise ValueError(f"unknown Atari game '{game}': did you mean '{nearest(game, games)}'?")
    try:
        roms.get_rom_path(game)
    except OSError as error:
        raise ValueError(f"the ROM of the Atari game '{game}' cannot be read: {error}") from error


def image_shape(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of images whose size is given as that or as the side of a square.

    :raises ValueError: if it is neither
    """
    if isinstance(image_size, Integral):
        image_size = (int(image_size), int(image_size))
    if not isinstance(image_size, tuple | list) or len(image_size) != 2:
        raise ValueError(f"image_size must be an integer or (height, width), got {image_size!r}")
    height, width = image_size
    require_at_least(1, image_size=height)
    require_at_least(1, image_size=width)
    return int(height), int(width)


def nearest(name: str, valid: Iterable[str], cutoff: float = 0.0) -> str:
    """The valid name that looks most like ``name``, whatever the case of its letters.

    :param cutoff: from 0, anything, to 1, the same; where nothing is so much alike, "" is returned
    """
    by_lower_case = {candidate.lower(): candidate for candidate in valid}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=cutoff)
    return by_lower_case[close[0]] if close else ""
