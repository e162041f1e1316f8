"""Input that makes no sense: options at random, and environments whose numbers are hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Env, spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.faults.table import Tally
from relmem.agents import MemoryPPO
from relmem.agents.collector import collect
from relmem.agents.finite import has_finite_weights
from relmem.cli.options import parse

NUMBERS = (0, -1, 1, 2, 3, 7, 64, 1e-3, 0.5, -0.5, 2**31, 1e308, float("nan"), float("inf"))
OTHERS = (
    True,
    False,
    None,
    "",
    "lin_1e-3",
    "lin_",
    "gru",
    "nonsense",
    [],
    [1],
    [0, -1],
    {},
    {"a": 1},
    "\0",
    "☃",
    "1e-3",
)
HOSTILE = (np.nan, np.inf, -np.inf, 1e38, -1e38, 1e30, 3.4e38, 1e-45, 0.0, -0.0)


def configurations(folder: Path, rng: np.random.Generator, quick: bool) -> Tally:
    """One to three options of a run set to values at random: they are taken, or refused in one sentence."""
    tally = Tally("configurations")
    base = ["--env.id", "relmem/MaskedCartPole-v0"]
    keys = [key for key in parse(base).config.flat() if key != "env.id"]
    values = [*NUMBERS, *OTHERS]
    for _ in range(100 if quick else 10_000):
        flags = [*base]
        for key in rng.choice(keys, size=rng.integers(1, 4), replace=False):
            flags += [f"--{key}", json.dumps(values[rng.integers(len(values))])]
        try:
            asked = parse(flags)
            asked.job(asked.config)
        except ValueError as error:
            text = str(error)
            tally.count(bool(text.strip()), text)
        except SystemExit:
            tally.count(True)
        except Exception as error:
            tally.count(False, f"{flags}: {type(error).__name__}: {error}")
        else:
            tally.count(True)
    return tally


class Hostile(Env):
    """Gives one number of our choice at one step, in its observation or as its reward."""

    observation_space, action_space = spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Discrete(2)

    def __init__(self) -> None:
        self.number, self.at, self.as_reward, self.time = 0.0, 0, False, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        obs, reward = np.full(3, 0.1, np.float32), 0.0
        if self.time == self.at:
            reward = self.number if self.as_reward else 0.0
            obs[1] = 0.1 if self.as_reward else self.number
        return obs, reward, self.time % 5 == 0, False, {}


def observations(folder: Path, rng: np.random.Generator, quick: bool) -> Tally:
    """Numbers of environments that are not finite or too large: said in one sentence, or learned from without harm."""
    tally = Tally("observations")
    env = Hostile()
    kwargs = {"core": "gru", "core_kwargs": {"hidden_size": 4}}
    model = MemoryPPO("MemoryPolicy", DummyVecEnv([lambda: env]), n_steps=8, n_epochs=1, seed=0, policy_kwargs=kwargs)
    model.learn(8)
    whole = {name: value.clone() for name, value in model.policy.state_dict().items()}
    for number in range(100 if quick else 10_000):
        env.number = float(HOSTILE[rng.integers(len(HOSTILE))] * rng.choice([1.0, rng.uniform(0.1, 1.0)]))
        env.time, env.at, env.as_reward = 0, int(rng.integers(1, 8)), bool(rng.integers(2))
        message = ""
        try:
            state = model.policy.initial_state(1)
            place = model.env.reset(), np.ones(1, bool), state
            for _ in collect(model.policy, model.env, model.buffer, *place, model.gamma, None):
                pass
            model.buffer.compute_advantages(model.gamma, model.gae_lambda)
            model._last_obs, model._last_episode_starts, model._state = place
            if number % 5 == 0:
                model.guard.begin()
                model.train()
        except FloatingPointError as error:
            message = str(error)
        except Exception as error:
            tally.count(False, f"{env.number} as {'reward' if env.as_reward else 'observation'}: {error!r}")
            continue
        finite = has_finite_weights(model.policy)
        tally.count("\n" not in message and finite, message, corrupted=not finite)
        if number % 5 == 0:
            model.policy.load_state_dict(whole)
            model.guard.halved = model.guard.in_a_row = 0
    return tally
