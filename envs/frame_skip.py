"""Frame skip: the agent acts every n frames of the environment and its action is repeated in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.core import ActType, ObsType

from ..common.options import Natural, require_option


class FrameSkip(gymnasium.Wrapper[ObsType, ActType, ObsType, ActType], gymnasium.utils.RecordConstructorArgs):
    """Repeat every action for ``frame_skip`` frames and sum their rewards.

    Image observations are the pixel-wise maximum over the last two frames of the repeat, since Atari games draw some
    objects on every other frame only; without skipping, and for other observations, they are the last one as it is.
    A repeat stops at the frame that ends the episode. The attribute ``frames_per_step`` is the number of repeats;
    ``watch_frames`` shows them to whoever films.

    :param env: an environment that does not skip frames itself
    :param frame_skip: frames per action; 0 means no skipping, the same as 1
    :raises ValueError: if ``frame_skip`` is negative or no integer
    """

    def __init__(self, env: gymnasium.Env[ObsType, ActType], frame_skip: Natural) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, frame_skip=frame_skip)
        super().__init__(env)
        self.frames_per_step = frames_per_step(frame_skip)
        self._on_frame: Callable[[], object] | None = None
        space = env.observation_space
        self._is_image = isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 2

    def step(self, action: ActType) -> tuple[ObsType, SupportsFloat, bool, bool, dict[str, Any]]:
        total_reward = 0.0
        frames: list[Any] = []  # the last two
        for _ in range(self.frames_per_step):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total_reward += float(reward)
            frames = [*frames[-1:], obs]
            if self._on_frame is not None:
                self._on_frame()
            if terminated or truncated:
                break
        if self._is_image and len(frames) == 2:
            obs = np.maximum(*frames)
        return obs, total_reward, terminated, truncated, info

    def watch_frames(self, on_frame: Callable[[], object] | None) -> None:
        """Call a function after every frame, those that the agent does not see included; None: no more."""
        self._on_frame = on_frame


def frames_per_step(frame_skip: Natural) -> int:
    """How many frames one action lasts: ``frame_skip``, or 1 where it is 0.

    :raises ValueError: if ``frame_skip`` is negative or no integer
    """
    require_option("frame_skip", Natural, frame_skip)
    return max(int(frame_skip), 1)
