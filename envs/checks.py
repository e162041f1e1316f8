"""Names of games and environments, sizes of images, and which rows of a frame these show."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from ale_py import roms

from ..common.options import Count, Natural

ImageSize = Count | tuple[Count, Count]
"""The side of square images, or (height, width)."""


Crop = tuple[Natural, Count]
"""Rows of a game's native frame that are shown: the first, and the one behind the last."""


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


def crop_window(crop: Crop | None, height: int, native_height: int) -> tuple[int, slice]:
    """How tall the image of a whole frame is, and which of its rows are the ``height`` rows that a crop shows.

    Rounding shifts the window, and stretches it, by less than one of these rows each.

    :raises ValueError: if the crop is empty, does not lie in the frame, or would be enlarged
    """
    if crop is None:
        return height, slice(height)
    top, bottom = map(int, crop)
    if not top < bottom <= native_height:
        raise ValueError(f"crop must be two rows, in rising order, of the {native_height} of a frame, got {list(crop)}")
    if height > bottom - top:
        raise ValueError(f"image_size asks for {height} rows, more than the {bottom - top} of the crop {list(crop)}")
    whole = round(height * native_height / (bottom - top))
    first = min(round(top * whole / native_height), whole - height)
    return whole, slice(first, first + height)


def nearest(name: str, valid: Iterable[str], cutoff: float = 0.0) -> str:
    """The valid name that looks most like ``name``, whatever the case of its letters.

    :param cutoff: from 0, anything, to 1, the same; where nothing is so much alike, "" is returned
    """
    by_lower_case = {candidate.lower(): candidate for candidate in valid}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=cutoff)
    return by_lower_case[close[0]] if close else ""
