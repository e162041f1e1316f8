"""A test of memory in which only some actions are allowed, which the agent learns from its mask alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from gymnasium import spaces

from ..common.options import Range, require_options
from .memory import RepeatFirst

PARTS = {"discrete": 1, "multi_discrete": 2, "multi_binary": 2}  # numbers in an action


class RepeatFirstAllowed(RepeatFirst):
    """``RepeatFirst`` with an action mask: before the last observation one choice of each part of an action, drawn
    anew at every step, is allowed, and any other ends the episode with nothing. At the last one all are.

    The mean return is 1 with memory and masks. Without memory it is at best ``1 / n`` for n actions; without masks at
    best ``n ** (1 - length)``, since what is allowed cannot be observed.

    An action is a number from 0 to ``n_choices`` - 1; as MultiDiscrete two of them; as MultiBinary two bits. It names
    the cue by its number, of two parts by n_choices * first + second.

    :param n_choices: choices for each part of an action; MultiBinary has 2
    :param length: observations per episode
    :param actions: the kind of the action space
    :raises ValueError: if an argument is out of range
    """

    def __init__(
        self,
        n_choices: Annotated[int, Range(2)] = 4,
        length: Annotated[int, Range(2)] = 8,
        actions: Literal["discrete", "multi_discrete", "multi_binary"] = "discrete",
    ) -> None:
        require_options(RepeatFirstAllowed, locals())
        n_choices = 2 if actions == "multi_binary" else n_choices
        self.n_choices, self.n_parts = n_choices, PARTS[actions]
        super().__init__(n_choices**self.n_parts, length)
        made: dict[str, Any] = {
            "discrete": self.action_space,
            "multi_discrete": spaces.MultiDiscrete([n_choices] * self.n_parts),
            "multi_binary": spaces.MultiBinary(self.n_parts),
        }
        self.action_space = made[actions]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        observation, info = super().reset(seed=seed, options=options)
        self._draw_allowed()
        return observation, info

    def action_masks(self) -> np.ndarray:
        """Which choices are allowed now: bool, those of all parts in a row."""
        return self._allowed.ravel().copy()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        parts = np.ravel(action).astype(int)  # [n_parts]
        if not self._allowed[np.arange(self.n_parts), parts].all():
            return self._observation(), 0.0, True, False, {}
        named = np.int64(np.ravel_multi_index(tuple(parts), (self.n_choices,) * self.n_parts))
        step = super().step(named)
        self._draw_allowed()
        return step

    def _draw_allowed(self) -> None:
        last = self._time == self.length - 1
        drawn = self.np_random.integers(self.n_choices, size=(self.n_parts, 1))
        self._allowed = (np.arange(self.n_choices) == drawn) | last  # [n_parts, n_choices]
