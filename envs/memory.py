"""Small environments that need memory, solved in seconds to minutes on a processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from ..common.options import Count, Natural, Range, require_options


class HideVelocities(gymnasium.ObservationWrapper, RecordConstructorArgs):
    """Observations without their velocities, so that motion must be remembered: these are zero, in the shape that
    observations had, as in rl_zoo3's ``NoVel`` environments, or left out.

    :param env: an environment with one-dimensional observations
    :param velocities: which components are velocities
    :param drop: whether they are left out
    """

    def __init__(self, env: gymnasium.Env, velocities: Sequence[Natural], drop: bool = False) -> None:
        require_options(HideVelocities, {"velocities": velocities, "drop": drop})
        RecordConstructorArgs.__init__(self, velocities=velocities, drop=drop)
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, spaces.Box)
        self._shown = np.ones(space.shape, dtype=bool)
        self._shown[list(velocities)] = False
        self._drop = drop
        if drop:
            self.observation_space = spaces.Box(space.low[self._shown], space.high[self._shown], dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[self._shown] if self._drop else np.where(self._shown, observation, np.float32(0.0))


class RepeatFirst(gymnasium.Env[np.ndarray, np.int64]):
    """Name the first cue at the end: an exact test of memory.

    Each of the ``length`` observations shows one of ``n_cues`` cues, one-hot; only the first matters. The last
    component is 1 at the last observation, and only the action taken there is rewarded: 1 for the first cue, 0 for any
    other. The mean return is 1 with memory and at best ``1 / n_cues`` without.

    :param n_cues: number of cues, and of actions
    :param length: observations per episode; with a single one there is nothing to remember
    :raises ValueError: if an argument is out of range
    """

    def __init__(self, n_cues: Count = 4, length: Annotated[int, Range(2)] = 16) -> None:
        require_options(RepeatFirst, locals())
        self.n_cues = n_cues
        self.length = length
        self.observation_space = spaces.Box(0.0, 1.0, (n_cues + 1,), dtype=np.float32)
        self.action_space = spaces.Discrete(n_cues)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._cues = self.np_random.integers(self.n_cues, size=self.length)
        self._time = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        last = self._time == self.length - 1
        reward = float(last and action == self._cues[0])
        if not last:
            self._time += 1
        return self._observation(), reward, last, False, {}

    def _observation(self) -> np.ndarray:
        observation = np.zeros(self.n_cues + 1, dtype=np.float32)
        observation[self._cues[self._time]] = 1.0
        observation[-1] = self._time == self.length - 1
        return observation


SIDES = {2: -1, 3: 1}  # of T-Maze's junction, by the actions that turn to them


class TMaze(gymnasium.Env[np.ndarray, np.int64]):
    """Walk along a corridor, and turn at its end to the side that a cue named (Bakker 2001; as in Ni et al. 2023).

    The cue, -1 or 1, is seen at one place only. There the agent starts; or, in the active variant, one cell before it,
    so that the cue must be fetched first. Observations: the cue, 0 anywhere else, and whether this is the junction:
    float32 [2]. Actions: 0 forward, 1 back, 2 and 3 turn to the sides -1 and 1, which is possible at the junction alone
    and ends the episode. What is not possible leaves the agent where it is.

    The right side is worth 1, the wrong one 0. There are just as many steps as the shortest way has: ``length`` forward
    and the turn, in the active variant two more. Each step that leaves the agent behind it costs 1 / (steps - 1), which
    teaches walking without the cue. The mean return is 1 with memory and at best 0.5 without: what is seen at the
    junction does not depend on the cue.

    :param length: cells from the cue, in the active variant from the start, to the junction
    :param active: whether the cue is one cell behind the start
    :raises ValueError: if an argument is out of range
    """

    def __init__(self, length: Count = 20, active: bool = False) -> None:
        require_options(TMaze, locals())
        self.length = length
        self.active = active
        self.steps = length + 1 + 2 * active
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)
        self.action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._cue = int(self.np_random.choice([-1, 1]))
        self._cell = int(self.active)  # the cue is in cell 0
        self._time = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._time += 1
        junction = self.length + self.active
        turns = self._cell == junction and int(action) in SIDES
        if turns:
            reward = float(SIDES[int(action)] == self._cue)
        else:
            move = {0: 1, 1: -1}.get(int(action), 0)
            self._cell = min(max(self._cell + move, 0), junction)
            behind = self._cell < self._time - self.active
            reward = -behind / (self.steps - 1)
        return self._observation(), reward, turns or self._time == self.steps, False, {}

    def _observation(self) -> np.ndarray:
        cue = self._cue if self._cell == 0 else 0
        return np.array([cue, self._cell == self.length + self.active], dtype=np.float32)


class MemoryChain(gymnasium.Env[np.ndarray, np.int64]):
    """Say at the end which bit was seen at the beginning: bsuite's memory length and memory size (Osband et al. 2020).

    Observations: the time left, from 1 to 0; at the last one that is acted on, which bit is asked for; and ``n_bits``
    bits, -1 or 1 at the first two observations and 0 at all others: float32 [2 + n_bits]. Only the last action, of
    ``length + 1``, counts: 1 if it names the bit, 0 or 1, else -1. (All this is as in bsuite, even that the first
    observation comes twice.) The mean return is 1 with memory and, at a length of 2 or more, 0 without.

    :param length: steps from the last sight of the bits to the end
    :param n_bits: number of bits
    :raises ValueError: if an argument is out of range
    """

    def __init__(self, length: Count = 10, n_bits: Count = 1) -> None:
        require_options(MemoryChain, locals())
        self.length = length
        self.n_bits = n_bits
        high = np.array([1, max(n_bits - 1, 1)] + [1] * n_bits, dtype=np.float32)
        low = np.array([0, 0] + [-1] * n_bits, dtype=np.float32)
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._bits = self.np_random.integers(2, size=self.n_bits)
        self._asked = int(self.np_random.integers(self.n_bits))
        self._actions = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._actions += 1
        last = self._actions == self.length + 1
        reward = (1.0 if action == self._bits[self._asked] else -1.0) if last else 0.0
        return self._observation(), reward, last, False, {}

    def _observation(self) -> np.ndarray:
        time = max(self._actions - 1, 0)
        asked = self._asked if time == self.length - 1 else 0
        bits = 2 * self._bits - 1 if time == 0 else np.zeros(self.n_bits)
        return np.array([1 - time / self.length, asked, *bits], dtype=np.float32)
