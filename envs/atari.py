"""One Atari game as a Gymnasium environment that shows what ``AtariVecEnv`` shows."""

from __future__ import annotations

import math
from typing import Any, Literal

import gymnasium
import numpy as np
from ale_py import ALEInterface, LoggerMode
from ale_py.env import AtariEnv
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import TimeLimit

from ..common.options import Count, Fraction, Natural, require_options
from .checks import Crop, ImageSize, crop_window, image_shape, require_rom
from .flicker import Flicker
from .frame_skip import FrameSkip, frames_per_step

ALEInterface.setLoggerMode(LoggerMode.Warning)  # without ALE's name and version, before each first game

MAX_FRAMES = 108_000
"""Frames after which an episode is cut off: 30 minutes of play, the convention of the field."""

START_FRAMES = 30
"""An episode starts after a random number of frames of FIRE and no-ops, fewer than this."""

EPISODES_PER_SEED = 100
"""Episodes after which an environment is seeded anew: so many at most have to be begun to come to one of them again."""


def make_atari_env(
    game: str,
    frame_skip: Natural = 4,
    image_size: ImageSize = 84,
    max_frames: Count = MAX_FRAMES,
    render_mode: Literal["rgb_array", "human"] | None = None,
    flicker: Fraction = 0.0,
    crop: Crop | None = None,
) -> gymnasium.Env[np.ndarray, np.int64]:
    """One Atari game with one grey frame per observation, uint8 [1, H, W], and actions that are never sticky.

    Seeded alike, it plays the episodes of ``AtariVecEnv``: the same rewards, ends and (after resizing: to within one
    grey level) images. Two things can differ: at the end of a game its terminal observation shows the very last frame,
    and the lengths of the random starts agree only where ALE was built with the GNU C++ library, as on Linux.

    :param game: name of the ROM, such as ``"pong"``
    :param frame_skip: emulator frames per agent step; 0 means no skipping, the same as 1
    :param image_size: side of the square observations, or (height, width)
    :param max_frames: frames after which an episode is cut off, with the step that reaches them
    :param render_mode: None, ``"rgb_array"`` (native size, in colour) or ``"human"``
    :param flicker: probability with which an observation is blank, all zeros, as ``Flicker`` draws it
    :param crop: [first row, row behind the last] of the native frame that are shown; None: all
    :raises ValueError: if an argument is out of range, the game is unknown or its ROM is missing
    """
    require_options(make_atari_env, locals())
    require_rom(game)
    env: gymnasium.Env = AtariEnv(
        game, obs_type="grayscale", frameskip=1, repeat_action_probability=0.0, render_mode=render_mode
    )
    env = TimeLimit(FrameSkip(RandomStart(env), frame_skip), math.ceil(max_frames / frames_per_step(frame_skip)))
    env = AreaResize(env, image_size, crop)
    return Flicker(env, flicker) if flicker else env


class RandomStart(gymnasium.Wrapper[np.ndarray, np.int64, np.ndarray, np.int64], RecordConstructorArgs):
    """Start every episode with FIRE, where the game has it, followed by a random number of no-ops.

    ``reset(options={"start_frames": k})`` asks for k frames in all.

    :param env: an Atari environment that does not skip frames
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, np.int64]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        meanings = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
        self._start = [meanings.index("FIRE")] if "FIRE" in meanings else []
        self._seed: int | None = None
        self._begun = 0  # episodes since it was seeded
        # A Mersenne twister seeded and scaled as in ALE's vector environment, whose starts are thereby repeated.
        self._random = np.random.RandomState()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        if seed is None and self._seed is not None and self._begun == EPISODES_PER_SEED:
            seed = next_seed(self._seed)
        if seed is not None:
            self._seed, self._begun = seed % 2**31, 0
            self._random.seed(self._seed)
        self._begun += 1
        start_frames = int(self._random.randint(2**32, dtype=np.uint64)) * START_FRAMES >> 32
        if options is not None:
            start_frames = options.get("start_frames", start_frames)
        no_ops = [0] * (start_frames - len(self._start))
        obs, info = self.env.reset(seed=seed, options=options)
        for action in self._start + no_ops:
            obs, _, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                obs, info = self.env.reset()
        return obs, info


class AreaResize(gymnasium.ObservationWrapper[np.ndarray, np.int64, np.ndarray], RecordConstructorArgs):
    """Bring grey frames [H0, W0] to images [1, H, W]: each pixel is the mean over the area that it covers.

    :param env: an environment with grey frames
    :param size: side of the square images, or (height, width)
    :param crop: rows of the frames that are shown; None: all
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, np.int64], size: ImageSize, crop: Crop | None = None) -> None:
        RecordConstructorArgs.__init__(self, size=size, crop=crop)
        super().__init__(env)
        height, width = image_shape(size)
        native_height, native_width = env.observation_space.shape  # type: ignore[misc]
        whole, rows = crop_window(crop, height, native_height)
        self._rows = area_weights(native_height, whole)[rows]  # [H, H0]
        self._columns = area_weights(native_width, width)  # [W, W0]
        self.observation_space = spaces.Box(0, 255, (1, height, width), dtype=np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        image = self._rows @ (observation.astype(np.float32) @ self._columns.T)  # [H, W]
        return np.rint(image).astype(np.uint8)[np.newaxis]  # [1, H, W]


def next_seed(seed: int) -> int:
    """The seed after this one, far from those of neighbours."""
    return (seed + 1_000_003) % 2**31


def area_weights(n_in: int, n_out: int) -> np.ndarray:
    """The matrix [n_out, n_in] that averages n_in pixels into n_out, each pixel weighted by the part it covers."""
    borders = np.arange(n_out + 1) * (n_in / n_out)
    pixels = np.arange(n_in)
    begin = np.maximum(borders[:-1, np.newaxis], pixels)
    end = np.minimum(borders[1:, np.newaxis], pixels + 1)
    return (np.clip(end - begin, 0.0, None) * (n_out / n_in)).astype(np.float32)
