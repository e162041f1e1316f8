"""Films of agents."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from ..agents import Algorithm
from ..common.extras import needs_extra
from ..common.files import require_new
from ..common.options import Count, Positive, require_options
from .play import action_names, frame_rate, play
from .scene import Scene


class Kind(NamedTuple):
    """What films are like unless they are asked for otherwise."""

    height: int  # of the game, at about
    rate: float  # frames per second, at most
    seconds: float  # at most


KINDS = {".mp4": Kind(420, 60.0, 60.0), ".gif": Kind(210, 15.0, 10.0)}
SCALES = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0)
PALETTE = (
    "[0:v]split[a][b];[a]palettegen=max_colors=128:stats_mode=full[p];[b][p]paletteuse=dither=none:diff_mode=rectangle"
)


class Film(NamedTuple):
    """What a film shows."""

    path: Path
    seconds: float
    returns: list[float]  # of the episodes that ended in it


def film(
    model: Algorithm,
    env: VecEnv,
    path: str | os.PathLike[str],
    memory: bool = False,
    episodes: Count = 1,
    seconds: Positive | None = None,
    scale: Positive | None = None,
    fps: Positive | None = None,
    deterministic: bool = True,
) -> Film:
    """Film an agent: the game in its own colours beside what the agent sees.

    :param env: one environment, which renders to ``rgb_array``; ``make_vec_env(..., render=True)`` makes one of any id
    :param path: of the film, .mp4 or .gif; nothing is there yet
    :param memory: whether to show what goes on inside of the agent too: its memory as heat maps, warm where numbers are
        positive and cold where they are negative, its gates, its value and the probabilities of its actions
    :param episodes: how many episodes the film shows
    :param seconds: length at which it ends anyway; None: 60, of a GIF 10
    :param scale: width and height of a pixel of the game; None: as brings it near to 420 pixels, of a GIF to 210
    :param fps: frames per second at most; None: 60, of a GIF 15. The game keeps its own speed
    :param deterministic: whether to take the most probable actions instead of sampled ones
    :raises ValueError: if the path has another ending or is taken, the environment cannot be filmed, its pictures would
        be larger than films can be, or the extra [video] is missing
    """
    require_options(film, locals())
    path = require_film(path)
    kind = path.suffix.lower()
    writer: Any = None
    partial = path.with_name(f".{path.stem}.partial{kind}")
    count, returns = 0, []
    try:
        for image, rate, ended in scenes(model, env, kind, memory, scale, fps, deterministic):
            if image is not None:
                writer = writer or _writer(partial, rate, image)
                writer.send(np.ascontiguousarray(image))
                count += 1
            if ended is not None:
                returns.append(ended)
            if len(returns) == episodes or count >= (seconds or KINDS[kind].seconds) * rate:
                break
        writer.close()
        os.replace(partial, path)
    finally:
        if writer is not None:
            writer.close()
        partial.unlink(missing_ok=True)
    return Film(path, count / rate, returns)


def scenes(
    model: Algorithm,
    env: VecEnv,
    kind: str,
    memory: bool,
    scale: float | None = None,
    fps: float | None = None,
    deterministic: bool = True,
) -> Iterator[tuple[np.ndarray | None, float, float | None]]:
    """Pictures without end [H, W, 3], how many of them a second has, and behind the last of an episode (in place of a
    picture) its return."""
    native = frame_rate(env)
    stride = max(1, round(native / (fps or KINDS[kind].rate)))
    moments = play(model, env, deterministic, inside=memory, camera=True)
    first = next(moments)
    frame = first.frames[0]
    nearest = min(SCALES, key=lambda factor: abs(np.log(frame.shape[0] * factor / KINDS[kind].height)))
    scene = Scene(env.observation_space, env.action_space, frame, scale or nearest, action_names(env))
    number, earlier = itertools.count(), frame
    for moment in itertools.chain([first], moments):
        background = scene.draw(moment)
        for frame in moment.frames:
            if next(number) % stride == 0:
                # Of frames that are left out the one before counts too: many games draw things on every other frame.
                shown = np.maximum(frame, earlier) if stride > 1 and len(moment.frames) > 1 else frame
                yield scene.put(background, shown), native / stride, None
            earlier = frame
        if moment.done:
            yield None, native / stride, moment.total


def require_film(path: str | os.PathLike[str]) -> Path:
    """The path of a film to be, once it is sure that it can be made.

    :raises ValueError: if it has another ending than a film has, something is there, or the extra [video] is missing
    """
    path = Path(path)
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"a film is called something{' or something'.join(KINDS)}, got '{path}'")
    require_new(path)
    with needs_extra("video", "a film"):
        import imageio_ffmpeg  # noqa: F401
    return path


def _writer(path: Path, rate: float, image: np.ndarray) -> Any:
    """What takes pictures [H, W, 3] by ``send`` and writes them into a film without sound."""
    import imageio_ffmpeg

    options: dict[str, Any] = {"codec": "libx264", "pix_fmt_out": "yuv420p", "output_params": ["-crf", "18"]}
    if path.suffix == ".gif":
        options = {"codec": "gif", "pix_fmt_out": "pal8", "output_params": ["-filter_complex", PALETTE]}
    size = image.shape[1], image.shape[0]
    writer = imageio_ffmpeg.write_frames(
        str(path), size, fps=rate, quality=None, macro_block_size=2, ffmpeg_log_level="error", **options
    )
    writer.send(None)
    return writer
