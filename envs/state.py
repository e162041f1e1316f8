"""Where vector environments are in their episodes: taken down, and taken up again in other ones that were made alike.

The state of an environment is that of all its layers, from the outermost wrapper inwards. A layer says it itself, by
two methods, ``save_state() -> value`` and ``load_state(value)`` (of what kinds a value may be, ``common/exact.py``
says); or it is the sum of the layer's attributes: numbers, texts, arrays, random generators, lists and dictionaries of
such. So it is in Gymnasium's classic control, in all of our environments and in most small ones. An environment with
attributes of another kind cannot be taken down.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from ..common.exact import Copier, NotExact, exact_copy
from .flicker import Blanks

PARTS = (Blanks, RunningMeanStd, StackedObservations)  # objects that are the sum of their attributes too
CONSTANT = (EnvSpec, type, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
# Attributes that are as they were made, or lead to the next layer.
OF_ENVS = ("spec", "metadata")
OF_WRAPPERS = (*OF_ENVS, "env", "_metadata", "_saved_kwargs", "_cached_spec")
OF_VEC_WRAPPERS = ("metadata", "venv", "class_attributes", "reset_infos", "_seeds", "_options", "obs_spaces")
# All of a Monitor that changes, but for the list of all its earlier episodes.
OF_MONITOR = ("rewards", "needs_reset", "total_steps", "current_reset_info")


def save_state(env: VecEnv) -> dict[str, Any]:
    """Where a vector environment is, between two of its steps, as an exact copy: ``layers``, of the wrappers around it,
    such as a normaliser; ``envs``, of each environment, None where they cannot be taken down; and ``why`` they cannot.
    """
    layers: list[Any] = []
    envs, why = None, ""
    while isinstance(env, VecEnvWrapper):
        try:
            layers.append(_of_layer(env, Copier()))
        except NotExact as error:
            why = str(error)
            layers.append(None)
        env = env.venv
    if not why:
        try:
            envs = _of_environments(env)
        except NotExact as error:
            why = str(error)
    return {"layers": layers, "envs": envs, "why": why}


def load_state(env: VecEnv, state: dict[str, Any]) -> bool:
    """Bring a vector environment to where another one was.

    :param state: what ``save_state`` returned; it becomes the environment's own
    :return: whether the environments are there; if not, only the wrappers are, and ``reset`` begins new episodes
    :raises ValueError: if they are not made alike
    """
    for layer in state["layers"]:
        if not isinstance(env, VecEnvWrapper):
            raise ValueError("the state is of a vector environment with more wrappers")
        if layer is not None:
            _to_layer(env, layer)
        env = env.venv
    if state["envs"] is None:
        return False
    if hasattr(env, "load_state"):
        return env.load_state(state["envs"])
    if not isinstance(env, DummyVecEnv) or len(env.envs) != len(state["envs"]):
        raise ValueError("the state is of another vector environment")
    for single, layers in zip(env.envs, state["envs"], strict=True):
        load_chain(single, layers)
    return True


def _of_environments(env: VecEnv) -> Any:
    if hasattr(env, "save_state"):
        return exact_copy(env.save_state())
    if type(env) is not DummyVecEnv:
        raise NotExact(f"a {type(env).__name__} does not show its environments")
    return [save_chain(single) for single in env.envs]


def save_chain(env: gymnasium.Env) -> list[Any]:
    """Where one environment is: an exact copy of the state of each of its layers, from the outermost inwards.

    :raises NotExact: if it cannot be taken down
    """
    copier = Copier()  # of all layers: what two of them share would not be shared any more
    return [_of_layer(layer, copier) for layer in _chain(env)]


def load_chain(env: gymnasium.Env, layers: list[Any]) -> None:
    """Bring an environment to where the one was of which this is the ``save_chain``.

    :raises ValueError: if it is not made alike
    """
    own = list(_chain(env))
    if len(own) != len(layers):
        raise ValueError(f"the state is of an environment of {len(layers)} layers, and this one has {len(own)}")
    for layer, saved in zip(own, layers, strict=True):
        _to_layer(layer, saved)


def _chain(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """An environment's layers, from the outermost inwards."""
    while True:
        yield env
        if not isinstance(env, gymnasium.Wrapper):
            return
        env = env.env


def _of_layer(layer: Any, copier: Copier) -> dict[str, Any]:
    """The state of one layer: its name and its content."""
    kind = type(layer).__name__
    if "save_state" in dir(type(layer)):
        return {"kind": kind, "own": copier.copy(layer.save_state())}
    attributes, parts, generators = {}, {}, {}
    for name in _changing(layer):
        value = getattr(layer, name)
        if isinstance(value, PARTS):
            parts[name] = _of_layer(value, copier)
        elif isinstance(value, dict) and value and all(isinstance(part, PARTS) for part in value.values()):
            parts |= {f"{name}/{key}": _of_layer(part, copier) for key, part in value.items()}
        elif isinstance(value, spaces.Space):  # of which samples may have been drawn
            drawn = [vars(part).get("_np_random") for part in _spaces(value)]
            if any(generator is not None for generator in drawn):
                generators[name] = [exact_copy(generator) for generator in drawn]  # layers share a space
        elif not isinstance(value, CONSTANT):
            try:
                attributes[name] = copier.copy(value)
            except NotExact as error:
                raise NotExact(f"'{name}' of {kind}: {error}") from None
    return {"kind": kind, "attributes": attributes, "parts": parts, "generators": generators}


def _changing(layer: Any) -> list[str]:
    """Names of the attributes that say where a layer is."""
    if isinstance(layer, Monitor):
        return [*OF_MONITOR]
    constant: tuple[str, ...] = OF_ENVS
    if isinstance(layer, gymnasium.Wrapper):
        constant = OF_WRAPPERS
    elif isinstance(layer, VecEnvWrapper):
        constant = OF_VEC_WRAPPERS
    return [name for name in vars(layer) if name not in constant]


def _to_layer(layer: Any, state: dict[str, Any]) -> None:
    if state["kind"] != type(layer).__name__:
        raise ValueError(f"the state is of a {state['kind']}, and this is a {type(layer).__name__}")
    if "own" in state:
        layer.load_state(state["own"])
        return
    vars(layer).update(state["attributes"])
    for name, part in state["parts"].items():
        attribute, _, key = name.partition("/")
        value = getattr(layer, attribute)
        _to_layer(value[key] if key else value, part)
    for name, drawn in state["generators"].items():
        for space, generator in zip(_spaces(getattr(layer, name)), drawn, strict=True):
            space._np_random = generator


def _spaces(space: spaces.Space) -> Iterator[spaces.Space]:
    """A space, and those that it consists of."""
    yield space
    within = getattr(space, "spaces", ())
    for part in within.values() if isinstance(within, dict) else within:
        yield from _spaces(part)
