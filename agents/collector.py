"""The rollout loop, for PPO and for the workers of A3C: it steps policy, environments and buffer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor

from .buffer import SequenceBuffer
from .cores import State
from .finite import LARGEST, LARGEST_LEARNED, Diverged, require_numbers
from .masks import mask_reader
from .policy import MemoryActorCriticPolicy
from .spaces import map_obs

THREAD_ENVS = 32  # observations that a step computes with one thread


class Step(NamedTuple):
    """One step of all N environments. Callbacks know its parts by these names, which are SB3's."""

    n_steps: int  # steps before it in this rollout
    obs_tensor: Any  # [N, ...], a tensor or a dictionary of tensors: what the policy saw
    episode_starts: Tensor  # [N], true where that was the first of an episode
    actions: Tensor  # [N, ...], as the policy drew them
    values: Tensor  # [N]
    log_probs: Tensor  # [N]
    clipped_actions: np.ndarray  # [N, ...], as the environments took them
    new_obs: Any  # [N, ...], an array or a dictionary of arrays
    rewards: np.ndarray  # [N]
    dones: np.ndarray  # [N], true where an episode ended with this step
    infos: list[dict[str, Any]]
    next_state: State  # of the core, [N, ...]
    action_masks: Tensor | None  # [N, M], true where a choice was allowed (see ``relmem.agents.masks``)


def collect(
    policy: MemoryActorCriticPolicy,
    env: VecEnv,
    buffer: SequenceBuffer,
    obs: Any,
    starts: np.ndarray,
    state: State,
    gamma: float,
    clip_reward: float | None,
) -> Iterator[Step]:
    """Play one rollout into the buffer, and hand out each step as soon as the environments have answered.

    Environments with a method ``action_masks`` are asked before each step which actions they allow.

    Who does not ask for the next step ends the rollout, and the buffer is of no use.

    :param obs: [N, ...], observations to begin with
    :param starts: [N], true where they are the first of an episode
    :param state: of the core before these observations, [N, ...]
    :param gamma: discount of the value that stands for the rest of an episode which a time limit cut
    :param clip_reward: store rewards clipped to [-clip_reward, clip_reward]; None: as they are
    :raises FloatingPointError: if an environment gives numbers that are not finite, before anything is made of them
    :raises ValueError: if an environment's action mask has the wrong shape or allows nothing
    """
    policy.set_training_mode(False)
    read_masks = mask_reader(env)
    _require_observations(env, obs)
    obs_tensor, episode_starts = to_tensors(policy, obs, starts)
    for t in range(buffer.n_steps):
        read = read_masks()
        masks = None if read is None else torch.as_tensor(read, device=policy.device)
        try:
            with torch.no_grad():
                seen = policy.prepare(obs_tensor)
                actions, values, log_probs, next_state = policy.act(seen, state, episode_starts, action_masks=masks)
        except Diverged:
            require_numbers("observation", obs, LARGEST_LEARNED)  # which may be to blame
            raise
        clipped_actions = to_env(policy.action_space, actions)
        env.step_async(clipped_actions)
        buffer.begin_step(t, seen, episode_starts, state, masks)  # while the environments step
        obs, rewards, dones, infos = env.step_wait()
        _require_observations(env, obs)
        require_numbers("reward", rewards, LARGEST_LEARNED if clip_reward is None else LARGEST)
        yield Step(
            t, obs_tensor, episode_starts, actions, values, log_probs,
            clipped_actions, obs, rewards, dones, infos, next_state, masks,
        )  # fmt: skip
        clipped = rewards if clip_reward is None else rewards.clip(-clip_reward, clip_reward)
        learned = torch.as_tensor(clipped, dtype=torch.float32, device=policy.device)
        if dones.any():
            learned = learned + gamma * values_after_timeout(policy, next_state, dones, infos)
        buffer.end_step(t, actions, values, log_probs, learned)
        state, (obs_tensor, episode_starts) = next_state, to_tensors(policy, obs, dones)
    with torch.no_grad():
        buffer.end_rollout(policy.value(obs_tensor, state, episode_starts), episode_starts)


@contextlib.contextmanager
def threads_of_rollout(n_envs: int) -> Iterator[None]:
    """Compute with no more threads than the steps of a rollout are worth: waking one for less than ``THREAD_ENVS``
    observations takes longer than it helps, and the emulators have use for the processors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(min(threads, max(1, n_envs // THREAD_ENVS)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _require_observations(env: VecEnv, obs: Any) -> None:
    """Refuse observations that are not finite, by what the environments gave where ``VecNormalize`` has mixed it."""
    try:
        require_numbers("observation", obs)
    except FloatingPointError:
        if (normalizer := unwrap_vec_normalize(env)) is not None:
            require_numbers("observation", normalizer.get_original_obs())
        raise


def to_tensors(policy: MemoryActorCriticPolicy, obs: Any, starts: np.ndarray) -> tuple[Any, Tensor]:
    """Observations and starts of episodes, where the policy computes."""
    return obs_as_tensor(obs, policy.device), torch.as_tensor(starts, dtype=torch.bool, device=policy.device)


def to_env(space: spaces.Space, actions: Tensor) -> np.ndarray:
    """Actions [N, ...] as the environments take them: inside the bounds of a continuous action space."""
    array = actions.cpu().numpy().reshape(-1, *(space.shape or ()))
    return np.clip(array, space.low, space.high) if isinstance(space, spaces.Box) else array


@torch.no_grad()
def values_after_timeout(
    policy: MemoryActorCriticPolicy, state: State, dones: np.ndarray, infos: list[dict[str, Any]]
) -> Tensor:
    """Value [N] of the state in which a time limit cut an episode; zero where none did. The episode could have gone
    on, so its return is bootstrapped.

    :param state: of the core after the last step, [N, ...]
    :param dones: [N], true where an episode ended with this step
    :param infos: of this step, with the last observation of each ended episode
    """
    values = torch.zeros(len(dones), device=policy.device)
    cut = [i for i in dones.nonzero()[0].tolist() if infos[i].get("TimeLimit.truncated", False)]
    if cut:
        stacked = map_obs(lambda *final: np.stack(final), *(infos[i]["terminal_observation"] for i in cut))
        require_numbers("last observation", stacked, environments=cut)
        rows = type(state)(*(leaf[cut] for leaf in state))
        obs, starts = to_tensors(policy, stacked, np.zeros(len(cut), dtype=bool))
        values[cut] = policy.value(obs, rows, starts)
    return values
