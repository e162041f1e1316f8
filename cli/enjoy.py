"""``relmem enjoy``: watch a trained agent in a window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from ..common.options import require_options
from ..common.output import say, warn
from ..experiment.film import film
from ..experiment.play import picture
from ..experiment.window import require_display, watch
from .agents import Player, arguments, open_player

EXAMPLES = (
    "relmem enjoy runs/pong_stm_ppo_s0_2026-11-27_16-21-58",
    "relmem enjoy runs/pong_stm_ppo_s0_2026-11-27_16-21-58 --memory --episodes 3",
)


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Load the agent, make its environment, and see whether there is a display.

    :param argv: the command line after ``relmem enjoy``
    :return: what plays
    :raises ValueError: if the command line asks for something impossible
    """
    parser = arguments(
        "enjoy",
        "Watch a trained agent in a window, at the speed of the game; Escape, q or closing the window ends it.",
        EXAMPLES,
        episodes=1,
    )
    parser.add_argument("--memory", action="store_true", help="show what goes on inside of the agent")
    parser.add_argument("--scale", type=float, help="size of the game's pixels (as brings it near to 420 rows)")
    asked, overrides = parser.read_with_overrides(argv, ("env",))
    options = {name: getattr(asked, name) for name in ("memory", "episodes", "scale")}
    require_options(film, options)
    require_display()
    player = open_player(asked, overrides, 1, render=True)
    player.env.reset()
    picture(player.env)
    return lambda: execute(player, options)


def execute(player: Player, options: dict[str, Any]) -> int:
    """Play until enough episodes have ended, or the window is closed."""
    try:
        with closing(player.env) as env:
            for number, total in enumerate(watch(player.model, env, deterministic=player.deterministic, **options), 1):
                say(f"episode {number}: return {total:g}")
    except (FloatingPointError, ValueError) as error:  # of the environment, or of a window that cannot be opened
        warn(str(error))
        return 1
    return 0
