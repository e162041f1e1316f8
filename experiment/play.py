"""An agent at play, step by step: what it saw, what went on inside of it, what it did, and what a camera saw of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ale_py.env import AtariEnv
from stable_baselines3.common.vec_env import VecEnv

from ..agents import Agent, Algorithm
from ..agents.finite import require_numbers
from ..agents.insight import Insight, look
from ..agents.masks import mask_reader

FRAMES_PER_SECOND = 30.0  # where an environment does not say
ATARI_FRAMES_PER_SECOND = 60.0  # of the console, where ALE says 30


class Moment(NamedTuple):
    """One step of an episode."""

    step: int  # of its episode, from 0
    observation: Any  # [1, ...], by parts where the space is a dictionary
    start: bool  # whether an episode begins with it
    memory: Any  # what the agent remembered before, as ``predict`` returned it; None: nothing yet
    insight: Insight | None  # what it made of it, if that was asked for
    action: np.ndarray
    total: float  # return of the episode so far, with this step's reward
    done: bool  # whether the episode ended here
    frames: list[np.ndarray]  # what a camera saw of the action [H, W, 3], if that was asked for


def play(
    model: Algorithm, env: VecEnv, deterministic: bool = True, inside: bool = False, camera: bool = False
) -> Iterator[Moment]:
    """Episodes without end, each step as it comes. The environment is reset first; normalised observations and action
    masks are as in ``evaluate``.

    :param env: one environment
    :param deterministic: whether to take the most probable actions
    :param inside: whether to look into the agent
    :param camera: whether to film, frame by frame where the environment skips frames
    :raises ValueError: if there are several environments, or this one cannot be filmed
    :raises FloatingPointError: if the environment gives numbers that are not finite
    """
    if env.num_envs != 1:
        raise ValueError(f"one environment is played at a time, got {env.num_envs}")
    env = model.normalized(env)
    agent, read_masks, obs = Agent(model), mask_reader(env), env.reset()
    frames: list[np.ndarray] = []
    all_frames = False
    if camera:
        picture(env)
        all_frames = _watch(env, lambda: frames.append(picture(env)))
    step, total, start = 0, 0.0, True
    try:
        while True:
            require_numbers("observation", obs)
            memory = agent.state
            masks = read_masks()
            insight = look(model.policy, obs, memory, start, masks) if inside else None
            action = agent.act(obs, deterministic, masks)  # type: ignore[arg-type]
            frames.clear()
            following, rewards, dones, _ = env.step(action)
            require_numbers("reward", rewards)
            if camera and not all_frames:
                frames.append(picture(env))
            done, total = bool(dones[0]), total + float(rewards[0])
            yield Moment(step, obs, start, memory, insight, action[0], total, done, list(frames))
            agent.reset(dones)
            obs, start = following, done
            step, total = (0, 0.0) if done else (step + 1, total)
    finally:
        if all_frames:
            _watch(env, None)


def picture(env: VecEnv) -> np.ndarray:
    """What an environment looks like now [H, W, 3].

    :raises ValueError: if it has no rendering
    """
    shown = None
    if env.render_mode == "rgb_array":
        try:
            shown = env.get_images()[0]
        except Exception as error:  # which is up to the environment, and what it renders with
            raise ValueError(f"the environment cannot be rendered: {' '.join(str(error).split())}") from error
    if not isinstance(shown, np.ndarray) or shown.ndim != 3:
        raise ValueError("the environment has no rendering (to rgb_array), so it can be neither watched nor filmed")
    return np.array(shown[:, :, :3], dtype=np.uint8)


def frame_rate(env: VecEnv) -> float:
    """Frames in a second of the environment's own time."""
    envs = getattr(env.unwrapped, "envs", None)
    if envs and isinstance(envs[0].unwrapped, AtariEnv):
        return ATARI_FRAMES_PER_SECOND
    return float((getattr(env, "metadata", None) or {}).get("render_fps") or FRAMES_PER_SECOND)


def action_names(env: VecEnv) -> list[str] | None:
    """What actions are called, where the environment says."""
    try:
        return [name.lower() for name in env.env_method("get_action_meanings")[0]]
    except AttributeError:
        return None


def _watch(env: VecEnv, on_frame: Any) -> bool:
    """Let every frame be seen; false where frames that are skipped cannot be."""
    try:
        env.env_method("watch_frames", on_frame)
    except AttributeError:
        return False
    return True
