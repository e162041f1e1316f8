"""Agents at play in a window."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from ..agents import Algorithm
from ..common.extras import needs_extra
from ..common.options import Count, Positive, require_options
from .film import scenes

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")  # one of them is set where windows can be opened
UNSEEN = ("offscreen", "dummy")  # drivers of SDL whose windows nobody sees
INSTEAD = "relmem record RUN --video FILE.mp4 films the agent in its place"


def watch(
    model: Algorithm,
    env: VecEnv,
    memory: bool = False,
    episodes: Count = 1,
    scale: Positive | None = None,
    deterministic: bool = True,
) -> Iterator[float]:
    """Show an agent in a window, which looks as a film of it (``film``), at the speed of the game.

    :param env: one environment, which renders to ``rgb_array``
    :param memory: whether to show what goes on inside of the agent
    :param episodes: after how many the window closes
    :param scale: width and height of a pixel of the game; None: as brings it near to 420 pixels
    :param deterministic: whether to take the most probable actions instead of sampled ones
    :return: the return of each episode as it ends; fewer than were asked for where the user closes the window
    :raises ValueError: if no window can be opened, or the environment has no rendering
    """
    require_options(watch, locals())
    pygame = require_display()
    screen, clock, ended = None, pygame.time.Clock(), 0
    try:
        for image, rate, total in scenes(model, env, ".mp4", memory, scale, deterministic=deterministic):
            if image is not None:
                if screen is None:
                    screen = pygame.display.set_mode((image.shape[1], image.shape[0]))
                    pygame.display.set_caption("relmem")
                screen.blit(pygame.surfarray.make_surface(image.swapaxes(0, 1)), (0, 0))
                pygame.display.flip()
                clock.tick(rate)
            if total is not None:
                ended += 1
                yield total
            if ended == episodes or any(_leaves(pygame, event) for event in pygame.event.get()):
                break
    except pygame.error as error:
        raise ValueError(f"no window can be opened here ({error}): {INSTEAD}") from error
    finally:
        pygame.display.quit()


def require_display() -> Any:
    """pygame, where there is a display.

    :raises ValueError: if there is none, or pygame is missing
    """
    if sys.platform.startswith("linux") and not any(map(os.environ.get, DISPLAYS)):
        raise ValueError(f"there is no display here to open a window on: {INSTEAD}")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    with needs_extra("video", "a window"):
        import pygame
    try:
        pygame.display.init()
    except pygame.error as error:
        raise ValueError(f"no window can be opened here ({error}): {INSTEAD}") from error
    if pygame.display.get_driver() in UNSEEN and "SDL_VIDEODRIVER" not in os.environ:  # as SDL does in the last resort
        raise ValueError(f"no window can be opened on the display that the environment names: {INSTEAD}")
    return pygame


def _leaves(pygame: Any, event: Any) -> bool:
    """Whether the user closes the window."""
    return event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key in (pygame.K_ESCAPE, pygame.K_q))
