"""Rollouts as sequences: the state of the memory is kept at the start of each sequence only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .cores import MemoryCore, State
from .spaces import map_obs

SHORTEST = 16  # sequences, in steps, that the rollout of a single environment is cut into


class SequenceBatch(NamedTuple):
    obs: Any  # [L, S, ...], a tensor or a dictionary of tensors, as `prepare` of the policy left them
    actions: Tensor  # [L, S, ...]
    values: Tensor  # [L, S], as estimated when the actions were taken
    log_probs: Tensor  # [L, S], likewise
    advantages: Tensor  # [L, S]
    returns: Tensor  # [L, S]
    starts: Tensor  # [L, S]
    state: State  # of the core before the first step, [S, ...]
    action_masks: Tensor | None  # [L, S, M], true where a choice was allowed; None: all were


class SequenceBuffer:
    """Holds one rollout of T steps in N environments, cut in time into C = T / L chunks of L steps.

    Everything is stored as [L, C * N, ...]: column c * N + n is the sequence of environment n in chunk c, so that a
    minibatch of whole sequences is one selection of columns. The state of the core is stored once per column: L times
    less than one state per step, and of the STM at its published size one state has 83,000 floats.

    :param n_steps: T
    :param n_envs: N
    :param length: L, the length of backpropagation through time; divides T
    :param core: the memory whose states are stored
    :param device: where the rollout is kept
    """

    def __init__(self, n_steps: int, n_envs: int, length: int, core: MemoryCore, device: torch.device) -> None:
        self.n_steps, self.n_envs, self.length = n_steps, n_envs, length
        self.n_sequences = n_steps // length * n_envs
        self.rewards, self.values, self.log_probs, self.advantages, self.returns, starts = (
            torch.zeros(length, self.n_sequences, device=device) for _ in range(6)
        )
        self.starts = starts.bool()
        self.obs: Any = None  # like those of the rollout's first step: under `VecNormalize`, not like the space
        self.actions: Any = None
        self.action_masks: Tensor | None = None
        self.state = MemoryCore.initial_state(core, self.n_sequences)  # zeros, whatever the core begins with

    def _room_for(self, given: Tensor) -> Tensor:
        """Room for what is given [N, ...] at one step, at all steps: [L, C * N, ...]."""
        dtype = torch.float32 if given.dtype == torch.float64 else given.dtype  # uint8 images stay uint8
        return given.new_empty(self.length, self.n_sequences, *given.shape[1:], dtype=dtype)

    def _at(self, t: int) -> tuple[int, slice]:
        """Row and columns of time step t."""
        chunk, row = divmod(t, self.length)
        return row, slice(chunk * self.n_envs, (chunk + 1) * self.n_envs)

    @torch.no_grad()
    def begin_step(self, t: int, obs: Any, starts: Tensor, state: State, action_masks: Tensor | None = None) -> None:
        """Store what is known before step t: obs [N, ...], starts [N], action masks [N, M] of environments that have
        some and, if a sequence begins here, the state."""
        row, columns = self._at(t)
        if t == 0:
            self.obs = map_obs(self._room_for, obs)
            self.action_masks = None if action_masks is None else self._room_for(action_masks)
        if self.action_masks is not None and action_masks is not None:
            self.action_masks[row, columns] = action_masks
        map_obs(lambda stored, given: stored[row, columns].copy_(given), self.obs, obs)
        self.starts[row, columns] = starts
        if row == 0:
            for stored, leaf in zip(self.state, state, strict=True):
                stored[columns] = leaf

    def end_step(self, t: int, actions: Tensor, values: Tensor, log_probs: Tensor, rewards: Tensor) -> None:
        """Store what step t did: actions [N, ...], values, log_probs and rewards [N]."""
        row, columns = self._at(t)
        if t == 0:
            self.actions = self._room_for(actions)
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

    def minibatches(self, n_sequences: int) -> Iterator[Tensor]:
        """One pass over the rollout in random order: the columns of ``n_sequences`` sequences at a time."""
        yield from torch.randperm(self.n_sequences, device=self.starts.device).split(n_sequences)

    def sequences(self, columns: Tensor) -> SequenceBatch:
        """The sequences in these columns, [S]."""

        def pick(stored: Tensor) -> Tensor:
            return stored.index_select(1, columns)

        return SequenceBatch(
            obs=map_obs(pick, self.obs),
            actions=pick(self.actions),
            values=pick(self.values),
            log_probs=pick(self.log_probs),
            advantages=pick(self.advantages),
            returns=pick(self.returns),
            starts=pick(self.starts),
            state=type(self.state)(*(leaf.index_select(0, columns) for leaf in self.state)),
            action_masks=None if self.action_masks is None else pick(self.action_masks),
        )


def minibatch_shape(n_steps: int, n_envs: int, bptt_length: int | None, batch_size: int | None) -> tuple[int, int]:
    """Length of a sequence, and how many of them make a minibatch.

    :raises ValueError: if they do not divide the rollout
    """
    length = n_steps if bptt_length is None else bptt_length
    # The rollout of a single environment would be a single sequence, and a single minibatch.
    if n_envs == 1 and bptt_length is None and batch_size is None:
        length = min(n_steps // k for k in (1, 2, 4) if n_steps % k == 0 and (k == 1 or n_steps // k >= SHORTEST))
    if n_steps % length:
        raise ValueError(
            f"bptt_length {length} does not divide n_steps {n_steps}; "
            f"the nearest that does is {_nearest_divisor(n_steps, length)}"
        )
    sequences = n_steps // length * n_envs
    if batch_size is None:
        return length, next(sequences // k for k in (4, 3, 2, 1) if sequences % k == 0)
    if batch_size % length or sequences % (batch_size // length):
        nearest = length * _nearest_divisor(sequences, batch_size / length)
        raise ValueError(
            f"batch_size {batch_size} does not cut {n_envs} environments x {n_steps} steps into whole sequences of "
            f"{length} steps; the nearest that does is {nearest}"
        )
    return length, batch_size // length


def _nearest_divisor(n: int, d: float) -> int:
    """Among all divisors of n, or of one that is huge among those of up to a million and what they leave."""
    small = [k for k in range(1, min(math.isqrt(n), 10**6) + 1) if n % k == 0]
    return min((*small, *(n // k for k in reversed(small))), key=lambda k: abs(k - d))
