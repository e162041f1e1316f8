"""``relmem record``: film a trained agent, and draw stills of its memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ..common.files import require_new
from ..common.options import require_options
from ..common.output import say, stage, warn
from ..experiment.film import KINDS, film, require_film
from ..experiment.play import picture
from ..experiment.stills import draw_stills
from .agents import Player, arguments, open_player

EXAMPLES = (
    "relmem record runs/pong_stm_ppo_s0_2026-11-27_16-21-58 --video pong.mp4 --memory",
    "relmem record runs/pong_stm_ppo_s0_2026-11-27_16-21-58 --video pong.gif --seconds 8",
    "relmem record runs/repeatfirst_rmc_ppo_s0_2026-11-27_17-00-00 --stills memory",
)
HELP = {
    "scale": "size of the game's pixels (as brings it near to 420 rows, of a GIF to 210)",
    "fps": "frames per second at most (60, of a GIF 15); the game keeps its own speed",
    "seconds": "length at which the film ends anyway (60, of a GIF 10)",
}


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Load the agent, make its environment, and see whether it can be filmed.

    :param argv: the command line after ``relmem record``
    :return: what films and draws
    :raises ValueError: if the command line asks for something impossible
    """
    parser = arguments(
        "record",
        "Film a trained agent: the game in its own colours beside what the agent sees, and with --memory beside what "
        "goes on inside of it: its memory as heat maps, its gates, its value, and how probable its actions are.",
        EXAMPLES,
        episodes=1,
    )
    parser.add_argument("--video", metavar="FILE", help=f"a film, one of {', '.join(KINDS)}; nothing is overwritten")
    parser.add_argument("--memory", action="store_true", help="show what goes on inside of the agent")
    parser.add_argument(
        "--stills", metavar="FOLDER", help="draw the memory of an episode, its norms and ranks, and what it depends on"
    )
    for name, words in HELP.items():
        parser.add_argument(f"--{name}", type=float, help=words)
    asked, overrides = parser.read_with_overrides(argv, ("env",))
    if not asked.video and not asked.stills:
        raise ValueError("record needs a --video FILE.mp4, a --stills FOLDER, or both")
    options = {name: getattr(asked, name) for name in ("memory", "episodes", *HELP)}
    require_options(film, options)
    if asked.stills:
        require_new(Path(asked.stills))
    if asked.video:
        require_film(asked.video)
    for driver in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):  # or SDL complains where there is no display, and no sound
        os.environ.setdefault(driver, "dummy")
    player = open_player(asked, overrides, 1, render=True)
    if asked.video:
        player.env.reset()
        picture(player.env)
    return lambda: execute(player, asked.video, asked.stills, options)


def execute(player: Player, video: str | None, stills: str | None, options: dict[str, Any]) -> int:
    """Film, draw, and tell where."""
    try:
        with closing(player.env) as env:
            if video:
                with stage(f"filming for '{video}'"):
                    made = film(player.model, env, video, deterministic=player.deterministic, **options)
                ended = ", ".join(f"{value:g}" for value in made.returns) or "none ended"
                size = made.path.stat().st_size / 1e3
                say(f"Filmed {made.path}: {made.seconds:.1f} s, {size:,.0f} kB; returns of its episodes: {ended}.")
            if stills:
                with stage(f"drawing '{stills}'"):
                    files = draw_stills(player.model, env, stills, player.deterministic)
                say(f"Drawn: {', '.join(map(str, files))}.")
    except FloatingPointError as error:  # of the environment: no fault of the program
        warn(str(error))
        return 1
    except (OSError, ValueError) as error:  # of the disk, or of a film that the environment ends
        warn(str(error))
        return 2 if isinstance(error, ValueError) else 1
    return 0
