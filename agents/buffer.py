"""Rollouts as sequences: the state of the memory is kept at the start of each sequence only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from torch import Tensor

from ..common.options import Count, require_option
from .cores import MemoryCore, State

SHORTEST = 16  # sequences, in steps, that the rollout of a single environment is cut into


class SequenceBatch(NamedTuple):
    obs: Any  # [L, S, ...], a tensor or a dictionary of tensors
    actions: Tensor  # [L, S, ...]
    values: Tensor  # [L, S], as estimated when the actions were taken
    log_probs: Tensor  # [L, S], likewise
    advantages: Tensor  # [L, S]
    returns: Tensor  # [L, S]
    starts: Tensor  # [L, S]
    state: State  # of the core before the first step, [S, ...]


def stored_actions(space: spaces.Space) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of one action as the policy's distribution yields it: flat, whatever the shape of the space."""
    if isinstance(space, spaces.Discrete):
        return (), torch.int64
    return (get_action_dim(space),), torch.int64 if isinstance(space, spaces.MultiDiscrete) else torch.float32


def _holding(obs: Tensor, stored: Tensor) -> Tensor:
    """``stored``, in float32 where observations are not the integers of their space, as under ``VecNormalize``."""
    return stored.float() if obs.is_floating_point() and not stored.is_floating_point() else stored


class SequenceBuffer:
    """Holds one rollout of T steps in N environments, cut in time into C = T / L chunks of L steps.

    Everything is stored as [L, C * N, ...]: column c * N + n is the sequence of environment n in chunk c, so that a
    minibatch of whole sequences is one selection of columns. The state of the core is stored once per column: L times
    less than one state per step, and of the STM at its published size one state has 83,000 floats.

    :param n_steps: T
    :param n_envs: N
    :param length: L, the length of backpropagation through time; divides T
    :param observation_space: of one environment
    :param action_space: of one environment
    :param core: the memory whose states are stored
    :param device: where the rollout is kept
    """

    def __init__(
        self,
        n_steps: int,
        n_envs: int,
        length: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        core: MemoryCore,
        device: torch.device,
    ) -> None:
        self.n_steps, self.n_envs, self.length = n_steps, n_envs, length
        self.n_sequences = n_steps // length * n_envs

        def allocate(shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(length, self.n_sequences, *shape, dtype=dtype, device=device)

        def like(space: spaces.Space) -> Tensor:
            dtype = torch.from_numpy(np.empty(0, space.dtype)).dtype  # uint8 images stay uint8
            return allocate(space.shape or (), torch.float32 if dtype == torch.float64 else dtype)

        if isinstance(observation_space, spaces.Dict):
            self.obs: Any = {key: like(space) for key, space in observation_space.items()}
        else:
            self.obs = like(observation_space)
        self.actions = allocate(*stored_actions(action_space))
        self.rewards, self.values, self.log_probs = allocate(), allocate(), allocate()
        self.advantages, self.returns = allocate(), allocate()
        self.starts = allocate(dtype=torch.bool)
        self.state = MemoryCore.initial_state(core, self.n_sequences)  # zeros, whatever the core begins with

    def _at(self, t: int) -> tuple[int, slice]:
        """Row and columns of time step t."""
        chunk, row = divmod(t, self.length)
        return row, slice(chunk * self.n_envs, (chunk + 1) * self.n_envs)

    @torch.no_grad()
    def begin_step(self, t: int, obs: Any, starts: Tensor, state: State) -> None:
        """Store what is known before step t: obs [N, ...], starts [N] and, if a sequence begins here, the state."""
        row, columns = self._at(t)
        if isinstance(obs, dict):
            for key, value in obs.items():
                self.obs[key] = _holding(value, self.obs[key])
                self.obs[key][row, columns] = value
        else:
            self.obs = _holding(obs, self.obs)
            self.obs[row, columns] = obs
        self.starts[row, columns] = starts
        if row == 0:
            for stored, leaf in zip(self.state, state, strict=True):
                stored[columns] = leaf

    def end_step(self, t: int, actions: Tensor, values: Tensor, log_probs: Tensor, rewards: Tensor) -> None:
        """Store what step t did: actions [N, ...], values, log_probs and rewards [N]."""
        row, columns = self._at(t)
        self.actions[row, columns] = actions
        self.values[row, columns] = values
        self.log_probs[row, columns] = log_probs
        self.rewards[row, columns] = rewards

    def end_rollout(self, last_values: Tensor, last_starts: Tensor) -> None:
        """Store what is known after the last step.

        :param last_values: [N], values of the coming observations
        :param last_starts: [N], true where those observations begin an episode
        """
        self._after = last_values, last_starts

    def compute_advantages(self, gamma: float, gae_lambda: float) -> None:
        """Generalised advantage estimation (Schulman et al. 2016)."""
        next_values, next_starts = self._after
        advantage = torch.zeros_like(next_values)
        for t in reversed(range(self.n_steps)):
            at = self._at(t)
            alive = (~next_starts).float()
            delta = self.rewards[at] + gamma * alive * next_values - self.values[at]
            advantage = delta + gamma * gae_lambda * alive * advantage
            self.advantages[at] = advantage
            next_values, next_starts = self.values[at], self.starts[at]
        torch.add(self.advantages, self.values, out=self.returns)

    def minibatches(self, n_sequences: int) -> Iterator[SequenceBatch]:
        """One pass over the rollout in random order, ``n_sequences`` whole sequences at a time."""
        order = torch.randperm(self.n_sequences, device=self.starts.device)
        for columns in order.split(n_sequences):

            def pick(stored: Tensor, columns: Tensor = columns) -> Tensor:
                return stored.index_select(1, columns)

            yield SequenceBatch(
                obs={k: pick(v) for k, v in self.obs.items()} if isinstance(self.obs, dict) else pick(self.obs),
                actions=pick(self.actions),
                values=pick(self.values),
                log_probs=pick(self.log_probs),
                advantages=pick(self.advantages),
                returns=pick(self.returns),
                starts=pick(self.starts),
                state=type(self.state)(*(leaf.index_select(0, columns) for leaf in self.state)),
            )


def minibatch_shape(n_steps: int, n_envs: int, bptt_length: int | None, batch_size: int | None) -> tuple[int, int]:
    """Length of a sequence, and how many of them make a minibatch.

    :raises ValueError: if they do not divide the rollout
    """
    length = n_steps if bptt_length is None else bptt_length
    # The rollout of a single environment would be a single sequence, and a single minibatch.
    if n_envs == 1 and bptt_length is None and batch_size is None:
        length = min(n_steps // k for k in (1, 2, 4) if n_steps % k == 0 and (k == 1 or n_steps // k >= SHORTEST))
    require_option("bptt_length", Count, length)
    if n_steps % length:
        raise ValueError(
            f"bptt_length {length} does not divide n_steps {n_steps}; "
            f"the nearest that does is {_nearest_divisor(n_steps, length)}"
        )
    sequences = n_steps // length * n_envs
    if batch_size is None:
        return length, min(s for s in range(1, sequences + 1) if sequences % s == 0 and s * 4 >= sequences)
    require_option("batch_size", Count, batch_size)
    if batch_size % length or sequences % (batch_size // length):
        nearest = length * _nearest_divisor(sequences, batch_size / length)
        raise ValueError(
            f"batch_size {batch_size} does not cut {n_envs} environments x {n_steps} steps into whole sequences of "
            f"{length} steps; the nearest that does is {nearest}"
        )
    return length, batch_size // length


def _nearest_divisor(n: int, d: float) -> int:
    return min((k for k in range(1, n + 1) if n % k == 0), key=lambda k: abs(k - d))
