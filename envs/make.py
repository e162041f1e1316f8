"""``make_vec_env``: any Gymnasium environment, and every Atari game at native speed, as an SB3 ``VecEnv``."""

from __future__ import annotations

import importlib
import inspect
import traceback
from pathlib import Path
from typing import Any, Literal

import ale_py
import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from stable_baselines3.common import env_util
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecFrameStack, VecTransposeImage

from ..common.checks import require_choice
from ..common.imports import imported
from ..common.options import Count, Fraction, Import, Natural, require_options
from .atari import make_atari_env
from .atari_vec import AtariVecEnv
from .checks import Crop, ImageSize, nearest
from .flicker import Flicker
from .frame_skip import FrameSkip, frames_per_step
from .last import LastActionReward
from .processes import ProcessVecEnv
from .suites import import_suite, wrap_suite

ATARI_ENTRY_POINT = "relmem.envs.atari:make_atari_env"
"""Ids registered with this entry point, ``relmem/PongSkip4-v0`` for one, fix the options in their ``kwargs``."""

gymnasium.register_envs(ale_py)
ALE_GAMES: dict[str, str] = {
    id: spec.kwargs["game"] for id, spec in gymnasium.registry.items() if spec.entry_point == "ale_py.env:AtariEnv"
}
"""The game of every id that ALE registers, such as ``ALE/Pong-v5`` or ``PongNoFrameskip-v4``."""


def make_vec_env(
    id: str,
    n_envs: Count = 1,
    frame_skip: Natural | None = None,
    seed: Natural | None = None,
    image_size: ImageSize | None = None,
    env_kwargs: dict[str, Any] | None = None,
    max_frames: Count | None = None,
    last_action: bool = False,
    last_reward: bool = False,
    flicker: Fraction | None = None,
    crop: Crop | None = None,
    n_threads: Count | None = None,
    wrapper: Import | list[Import] | None = None,
    frame_stack: Count | None = None,
    backend: Literal["auto", "dummy", "subproc"] = "auto",
    render: bool = False,
) -> VecEnv:
    """Make ``n_envs`` copies of an environment that report episode statistics and have channel-first images.

    All ids of one Atari game mean the same: its ROM with the frame skip given here and no sticky actions, whatever
    the id stands for elsewhere (see ``AtariVecEnv``). Other environments run one after the other in this process, or
    each in one of its own.
    ``get_attr("frames_per_step")`` of the result tells how many frames an action lasts.

    :param id: Gymnasium id of the environment, or package:id where the import of a package registers it
    :param n_envs: number of environments
    :param frame_skip: frames that each action is repeated for, 0 and 1 for no repetition; null: what the id says, else
        4 for Atari games and 0 for others
    :param seed: environment i is seeded with seed + i at the first reset; null: at random
    :param image_size: side of an Atari game's square images, or [height, width]; null: 84
    :param env_kwargs: further arguments of an environment that is no Atari game
    :param max_frames: frames after which an episode is cut off; null: what the id says, 108000 for Atari games
    :param last_action: whether observations show the last action too, zeros where an episode begins
    :param last_reward: whether observations show the last reward too, zero where an episode begins
    :param flicker: probability with which each observation is blank, all zeros; null: what the id says, else 0
    :param crop: rows of an Atari game's frames that are shown, such as [34, 194], Pong's court; null: all 210
    :param n_threads: threads that step Atari games; null: one for each processor
    :param wrapper: module:name of a wrapper, or several in a list, the innermost first: of Gymnasium's kind or a
        function, around each environment behind its frame skip, or of SB3's VecEnvWrapper kind, around all
    :param frame_stack: how many last observations are shown as one (SB3's VecFrameStack); null: 1
    :param backend: dummy steps environments one after the other in this process, subproc each in a process of its own,
        which pays where a step takes milliseconds; auto is dummy. Atari games have their own threads
    :param render: whether ``get_images`` shows Atari games in colour and of native size, as films want them: the same
        episodes, stepped more slowly. Others always do where they can, and then run in this process
    :raises ValueError: if the id is unknown (naming the nearest one), a package or ROM that it needs is missing, an
        argument is out of range, or the environment cannot be made or has spaces that SB3 cannot hold
    """
    if not isinstance(id, str):
        raise ValueError(
            f"an environment is named by a Gymnasium id such as 'CartPole-v1', got {id!r}: register yours with "
            "gymnasium.register, or make a vector environment of it with SB3's DummyVecEnv"
        )
    require_options(make_vec_env, locals())
    spec = find_spec(id)
    if last_action and spec.id.startswith("popgym-"):
        raise ValueError(f"observations of '{id}' show the last action already: leave last_action out")
    options: dict[str, Any] = {"frame_skip": frame_skip, "max_frames": max_frames, "flicker": flicker}
    wrappers = [imported(path, "wrapper") for path in ([wrapper] if isinstance(wrapper, str) else wrapper or [])]
    around_all = [made for made in wrappers if isinstance(made, type) and issubclass(made, VecEnvWrapper)]
    around_each = [made for made in wrappers if made not in around_all]
    of_games = {"image_size": image_size, "crop": crop, "n_threads": n_threads}
    if spec.id in ALE_GAMES or spec.entry_point == ATARI_ENTRY_POINT:
        if env_kwargs:
            raise ValueError(f"'{id}' is an Atari game, which takes no env_kwargs")
        if around_each:
            raise ValueError(f"'{id}' is an Atari game, whose wrappers must be of SB3's VecEnvWrapper kind")
        if backend != "auto":
            raise ValueError(f"'{id}' is an Atari game, which ALE steps in threads: leave backend at auto")
        env = _games(id, spec, n_envs, seed, options | of_games, render)
    else:
        for name in ("image_size", "crop"):
            if of_games[name] is not None:
                raise ValueError(f"{name} is for Atari games, and '{id}' is none")
        if n_threads and n_threads > 1:
            raise ValueError(
                f"n_threads above 1 is for Atari games, and '{id}' is none: its copies are stepped in turn"
            )
        in_processes = backend == "subproc" and not render
        options |= {"wrappers": around_each, "vec_env": ProcessVecEnv if in_processes else DummyVecEnv}
        env = _copies(id, spec, n_envs, seed, env_kwargs or {}, **options)
    for around in around_all:
        env = around(env)
    if frame_stack:
        space = env.observation_space
        if not all(
            isinstance(part, spaces.Box) for part in (space.values() if isinstance(space, spaces.Dict) else [space])
        ):
            raise ValueError(f"frame_stack is for observations that are arrays, not for {space}")
        env = VecFrameStack(env, frame_stack)
    return LastActionReward(env, last_action, last_reward) if last_action or last_reward else env


def _games(id: str, spec: EnvSpec, n_envs: int, seed: int | None, options: dict[str, Any], render: bool) -> VecEnv:
    """An Atari game, with what its id fixes, and options of which None leaves one open."""
    fixed = {"game": ALE_GAMES[spec.id]} if spec.id in ALE_GAMES else spec.kwargs
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() & fixed.keys():
        if given[name] != fixed[name]:
            raise ValueError(f"'{id}' has {name} {fixed[name]}, not {given[name]}: use an id that leaves it open")
    if render:
        given.pop("n_threads", None)
        return env_util.make_vec_env(lambda: make_atari_env(**fixed | given, render_mode="rgb_array"), n_envs, seed)
    return AtariVecEnv(n_envs=n_envs, seed=seed, **fixed | given)


def _copies(
    id: str, spec: EnvSpec, n_envs: int, seed: int | None, env_kwargs: dict[str, Any],
    frame_skip: int | None, max_frames: int | None, flicker: float | None, wrappers: list[Any],
    vec_env: type[DummyVecEnv] | type[ProcessVecEnv],
) -> VecEnv:  # fmt: skip
    """Any other environment, copy by copy."""
    frames = frames_per_step(frame_skip or 0)

    def make_env() -> gymnasium.Env:
        creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        _require_known(creator, env_kwargs)
        options = _render_options(creator) | {"max_episode_steps": max_frames} | env_kwargs
        env: gymnasium.Env = FrameSkip(wrap_suite(spec.id, gymnasium.make(spec, **options)), frames)
        for wrap in wrappers:
            env = wrap(env)
        if not isinstance(env, gymnasium.Env):
            raise ValueError(f"a wrapper made {env!r} of it, which is no Gymnasium environment")
        if flicker:
            env = Flicker(env, flicker)
        _require_holdable(env)
        return env

    try:
        if vec_env is ProcessVecEnv:
            make_env().close()  # what is wrong is then said here, and not by a process that dies of it
        env: VecEnv = env_util.make_vec_env(make_env, n_envs, seed, vec_env_cls=vec_env)
    except Exception as error:  # which is up to the environment's constructor
        given_kwargs = f" (env_kwargs: {env_kwargs})" if env_kwargs else ""
        raise ValueError(f"cannot make '{id}': {_sentence(error)}{given_kwargs}") from error
    space = env.observation_space
    if isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space):
        env = VecTransposeImage(env)
    return env


def find_spec(id: str) -> EnvSpec:
    """What Gymnasium has registered under an id, which may have the form ``package:id``.

    :raises ValueError: if the id is unknown or the package cannot be imported
    """
    package, _, name = id.rpartition(":")
    if package:
        try:
            importlib.import_module(package)
        except Exception as error:  # which is up to the package
            raise ValueError(f"'{id}' needs a package that cannot be imported: {_sentence(error)}") from error
    import_suite(name)
    if name not in gymnasium.registry:
        # Without versions, all of which look alike; of those of one name the last is the newest.
        by_name = {known.rpartition("-v")[0] or known: known for known in gymnasium.registry}
        close = nearest(name.rpartition("-v")[0] or name, by_name, cutoff=0.6)
        hint = f"did you mean '{by_name[close]}'? An" if close else "an"
        raise ValueError(f"unknown environment '{id}': {hint} id of another package is written 'package:id'")
    return gymnasium.registry[name]


def _render_options(creator: Any) -> dict[str, Any]:
    """Rendering to arrays where the environment can, as SB3's video recorder expects it."""
    parameters = inspect.signature(creator).parameters.values()
    if not any(p.name == "render_mode" or p.kind is p.VAR_KEYWORD for p in parameters):
        return {}
    metadata = getattr(creator, "metadata", None)  # of a wrapper's class, a property
    modes = metadata.get("render_modes", []) if isinstance(metadata, dict) else []
    return {"render_mode": "rgb_array"} if "rgb_array" in modes else {}


def _require_known(creator: Any, env_kwargs: dict[str, Any]) -> None:
    """Raise a ValueError if neither an environment's constructor nor Gymnasium knows one of the arguments."""
    own, of_make = (inspect.signature(of).parameters.values() for of in (creator, gymnasium.make))
    if not any(p.kind is p.VAR_KEYWORD for p in own):
        for name in env_kwargs:
            require_choice("argument", name, [p.name for p in (*own, *of_make) if p.kind is not p.VAR_KEYWORD])


def _require_holdable(env: gymnasium.Env) -> None:
    """Raise a ValueError that names what SB3's vector environments and policies cannot hold."""
    space = env.observation_space
    parts = {f"observation['{name}']": part for name, part in space.items()} if isinstance(space, spaces.Dict) else {}
    for name, part in {**(parts or {"the observation": space}), "the action": env.action_space}.items():
        if not isinstance(part, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            wrapper = "TransformAction" if name == "the action" else "FilterObservation or FlattenObservation"
            raise ValueError(
                f"{name} is of the kind {type(part).__name__}, where SB3 takes numbers and arrays, as observation also "
                f"a dictionary of these: register it with one of gymnasium.wrappers, such as {wrapper}"
            )


def _sentence(error: Exception) -> str:
    """What an error says, on one line; with its kind and place where it was not raised to be read."""
    text = " ".join(str(error).split())
    if text and isinstance(error, ImportError | ValueError | gymnasium.error.Error):
        return text
    place = traceback.extract_tb((error.__cause__ or error).__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}: {text or 'no message'}"
