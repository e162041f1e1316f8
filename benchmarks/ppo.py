"""Agent steps per second of recurrent PPO on Pong, beside stock ``sb3_contrib.RecurrentPPO``.

Once with equal networks and settings: 8 environments x 128 steps, 4 epochs of minibatches of 256, Nature CNN, LSTM 512
shared by actor and critic; the STM learns from sequences of 32 steps, the others from whole rollouts. And once our
recipes, ``configs/pong``, beside the stock algorithm as it is run on Atari games: these settings with an LSTM of 256.

All contestants step the same native vector environment, so that only the learners differ, and each has a process of its
own, because our learners change how the whole process allocates memory.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple, cast

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.measure import Group, Spread, Table, Target, interleave, peak_memory, per_second, speedup, timed
from relmem.agents import MemoryPPO
from relmem.cli.options import parse
from relmem.envs import make_vec_env
from relmem.experiment.agent import AgentJob

GAME = "PongNoFrameskip-v4"
SKIPS = (0, 4, 16, 32)
N_ENVS = 8
STOCK, LSTM, STM = "stock RecurrentPPO, LSTM 512", "relmem PPO, LSTM 512", "relmem PPO, STM n=8 d=64"
CORES = {
    LSTM: {"core": "lstm", "core_kwargs": {"hidden_size": 512}},
    STM: {"core": "stm", "core_kwargs": {"queries": 8}},
}
STOCK_ATARI = "stock RecurrentPPO, LSTM 256"
STOCK_CELLS = {STOCK: 512, STOCK_ATARI: 256}
RECIPES = {
    "pong/lstm": (1300, 1700),
    "pong/stm": (900, 1300),
    "pong/rmc": None,
    "pong/identity": None,
}  # steps/s wanted
PHASES = ("environment", "inference and the rest of collection", "update")
LEAST = 2048  # agent steps of a round, for which learners with small rollouts take several


def measure(quick: bool, rounds: int) -> Group:
    rates, targets = [], []
    for skip in SKIPS[1:2] if quick else SKIPS:
        seconds, phases = run((STOCK, LSTM, *([STM] if skip == 4 else [])), skip, quick, rounds)
        speedups = {name: speedup(seconds[STOCK], mine) for name, mine in seconds.items()}
        rates += [
            {"skip": skip, "learner": name, "agent steps/s": per_second(1, mine), "times as fast": speedups[name]}
            for name, mine in seconds.items()
        ]
        if skip == 4:
            targets.append(Target(f"{LSTM}, Pong skip 4, agent steps/s against {STOCK}", speedups[LSTM], 2.6, 3))
            targets.append(Target(f"{STM}, Pong skip 4, agent steps/s against {STOCK}", speedups[STM], 2.5, 4))
            parts = phases
    seconds, recipes = run((STOCK_ATARI, *RECIPES), 4, quick, rounds)
    faster = speedup(seconds[STOCK_ATARI], seconds["pong/lstm"])
    targets.append(Target(f"pong/lstm, agent steps/s against {STOCK_ATARI}", faster, 5, 7))
    for name, wanted in RECIPES.items():
        if wanted:
            targets.append(Target(f"{name}, agent steps/s", per_second(1, seconds[name]), *wanted))
    rows = [
        {"learner": name, "agent steps/s": per_second(1, mine), "times as fast": speedup(seconds[STOCK_ATARI], mine)}
        for name, mine in seconds.items()
    ]
    gib = [{"learner": name, "GiB": peak_memory(one_rollout, name, quick)} for name in (STOCK, LSTM, STM)]
    return Group(
        targets,
        [
            Table("PPO on Pong, equal networks", "Frame skips as in the paper; 0 is none.", rates),
            Table("Where its time goes", "Skip 4, milliseconds per 1,024 agent steps.", parts),
            Table("PPO on Pong, our recipes", "Skip 4; each with its own network and settings.", rows),
            Table("Where their time goes", "Milliseconds per 1,024 agent steps; cores that were busy.", recipes),
            Table("Peak memory of PPO", "Beyond the imports: environments, rollout and update.", gib),
        ],
    )


def run(
    names: tuple[str, ...], skip: int, quick: bool, rounds: int
) -> tuple[dict[str, list[float]], list[dict[str, Any]]]:
    """Seconds per agent step of each contestant in each round, and a row of where its time goes for each."""
    learners = {name: Learner(name, skip, quick) for name in names}
    seconds = interleave({name: learner.seconds_per_step for name, learner in learners.items()}, rounds)
    return seconds, [{"learner": name} | learner.parts() for name, learner in learners.items()]


def make_learner(name: str, skip: int, quick: bool) -> OnPolicyAlgorithm:
    if name in RECIPES:
        job = AgentJob(parse(["--config", name, "--seed", "0"]).config, smoke=quick)
        job.prepare(None)
        return cast(OnPolicyAlgorithm, job.learner)
    env = make_vec_env(GAME, N_ENVS, frame_skip=skip, seed=0)
    steps, batch = (4, 8) if quick else (128, 256)
    settings: dict[str, Any] = dict(n_steps=steps, batch_size=batch, n_epochs=4, clip_range=0.1, ent_coef=0.01, seed=0)
    if name in STOCK_CELLS:
        lstm = {"lstm_hidden_size": STOCK_CELLS[name], "shared_lstm": True, "enable_critic_lstm": False}
        return RecurrentPPO("CnnLstmPolicy", env, policy_kwargs=lstm, **settings)
    if name == STM:
        settings["bptt_length"] = min(32, steps)
    return MemoryPPO("MemoryPolicy", env, policy_kwargs=CORES[name] | {"features": "nature"}, **settings)


def one_rollout(name: str, quick: bool) -> Callable[[], object]:
    """For ``peak_memory``."""
    return lambda: (model := make_learner(name, 4, quick)).learn(model.n_steps * N_ENVS)


class Learner:
    """A contestant in a process of its own, which notes where its time goes."""

    def __init__(self, name: str, skip: int, quick: bool) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, spawn, initializer=_start, initargs=(name, skip, quick))
        self.rounds: list[Round] = []

    def seconds_per_step(self) -> float:
        """Collect rollouts and learn from them."""
        self.rounds.append(self._process.submit(_round).result())
        return sum(self.rounds[-1].phases) / self.rounds[-1].steps

    def parts(self) -> dict[str, Spread]:
        """Milliseconds of each phase per 1,024 steps, and how many processor cores were busy; ends the process."""
        self._process.shutdown()
        counted = self.rounds[1:]  # without the one that warms up
        parts = {
            name: Spread.of([1e3 * 1024 / round_.steps * round_.phases[i] for round_ in counted])
            for i, name in enumerate(PHASES)
        }
        return parts | {"cores busy": Spread.of([round_.processor / sum(round_.phases) for round_ in counted])}


class Round(NamedTuple):
    steps: int  # agent steps
    phases: tuple[float, ...]  # seconds
    processor: float  # seconds of all cores


_model: OnPolicyAlgorithm
_quick: bool
_clocks: dict[str, float] = {}


def _start(name: str, skip: int, quick: bool) -> None:
    global _model, _quick
    _model, _quick = make_learner(name, skip, quick), quick
    env = _model.get_env()
    for owner, method in ((env, "step_async"), (env, "step_wait"), (_model, "train")):
        setattr(owner, method, timed(getattr(owner, method), _clocks, method))


def _round() -> Round:
    _clocks.update(step_async=0.0, step_wait=0.0, train=0.0)
    rollout = _model.n_steps * _model.n_envs
    steps = rollout if _quick or rollout >= 1024 else LEAST // rollout * rollout
    begin, processor = time.perf_counter(), time.process_time()
    _model.learn(steps, reset_num_timesteps=False)
    total, processor = time.perf_counter() - begin, time.process_time() - processor
    environment, update = _clocks["step_async"] + _clocks["step_wait"], _clocks["train"]
    return Round(steps, (environment, total - environment - update, update), processor)
