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

from ..common.exact import NotPlain, Packer, unpack
from .flicker import Blanks

PARTS = (Blanks, RunningMeanStd, StackedObservations)  # objects that are the sum of their attributes too
CONSTANT = (spaces.Space, EnvSpec, type, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
FIXED = {  # attributes that are as they were made, or hold no part of an episode
    *("env", "venv", "spec", "metadata", "_metadata", "_saved_kwargs", "_cached_spec", "class_attributes"),
    *("reset_infos", "_seeds", "_options"),
}
OF_MONITOR = ("rewards", "needs_reset", "total_steps", "current_reset_info")  # and not all earlier episodes


def save_state(env: VecEnv, packer: Packer) -> dict[str, Any]:
    """Where a vector environment is, between two of its steps, as plain data: ``layers``, of the wrappers around it,
    such as a normaliser; ``envs``, of each environment, None where they cannot be taken down; and ``why`` they cannot.

    :param packer: takes the arrays
    """
    layers: list[Any] = []
    envs, why = None, ""
    while isinstance(env, VecEnvWrapper):
        packer.begin()
        try:
            layers.append(_of_layer(env, packer))
        except NotPlain as error:
            why = str(error)
            layers.append(None)
        env = env.venv
    if not why:
        try:
            envs = _of_environments(env, packer)
        except NotPlain as error:
            why = str(error)
    return {"layers": layers, "envs": envs, "why": why}


def load_state(env: VecEnv, state: dict[str, Any], tensors: dict[str, Any]) -> bool:
    """Bring a vector environment to where another one was.

    :param state: what ``save_state`` returned
    :param tensors: the arrays of its packer
    :return: whether the environments are there; if not, only the wrappers are, and ``reset`` begins new episodes
    :raises ValueError: if they are not made alike
    """
    for layer in state["layers"]:
        if not isinstance(env, VecEnvWrapper):
            raise ValueError("the state is of a vector environment with more wrappers")
        if layer is not None:
            _to_layer(env, layer, tensors)
        env = env.venv
    if state["envs"] is None:
        return False
    if hasattr(env, "load_state"):
        return env.load_state(unpack(state["envs"], tensors))
    if not isinstance(env, DummyVecEnv) or len(env.envs) != len(state["envs"]):
        raise ValueError("the state is of another vector environment")
    for single, layers in zip(env.envs, state["envs"], strict=True):
        for layer, saved in zip(_chain(single), layers, strict=True):
            _to_layer(layer, saved, tensors)
    return True


def _of_environments(env: VecEnv, packer: Packer) -> Any:
    packer.begin()
    if hasattr(env, "save_state"):
        return packer.pack(env.save_state())
    if type(env) is not DummyVecEnv:
        raise NotPlain(f"a {type(env).__name__} does not show its environments")
    packed = []
    for single in env.envs:
        packer.begin()
        packed.append([_of_layer(layer, packer) for layer in _chain(single)])
    return packed


def _chain(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """An environment's layers, from the outermost inwards."""
    while True:
        yield env
        if not isinstance(env, gymnasium.Wrapper):
            return
        env = env.env


def _of_layer(layer: Any, packer: Packer) -> dict[str, Any]:
    """The state of one layer: its name and its content."""
    kind = type(layer).__name__
    if "save_state" in dir(type(layer)):
        return {"kind": kind, "own": packer.pack(layer.save_state())}
    names = OF_MONITOR if isinstance(layer, Monitor) else [name for name in vars(layer) if name not in FIXED]
    attributes, parts = {}, {}
    for name in names:
        value = getattr(layer, name)
        if isinstance(value, PARTS):
            parts[name] = _of_layer(value, packer)
        elif isinstance(value, dict) and value and all(isinstance(part, PARTS) for part in value.values()):
            parts |= {f"{name}/{key}": _of_layer(part, packer) for key, part in value.items()}
        elif not isinstance(value, CONSTANT):
            try:
                attributes[name] = packer.pack(value)
            except NotPlain as error:
                raise NotPlain(f"'{name}' of {kind}: {error}") from None
    return {"kind": kind, "attributes": attributes, "parts": parts}


def _to_layer(layer: Any, state: dict[str, Any], tensors: dict[str, Any]) -> None:
    if state["kind"] != type(layer).__name__:
        raise ValueError(f"the state is of a {state['kind']}, and this is a {type(layer).__name__}")
    if "own" in state:
        layer.load_state(unpack(state["own"], tensors))
        return
    for name, value in state["attributes"].items():
        setattr(layer, name, unpack(value, tensors))
    for name, part in state["parts"].items():
        attribute, _, key = name.partition("/")
        value = getattr(layer, attribute)
        _to_layer(value[key] if key else value, part, tensors)
