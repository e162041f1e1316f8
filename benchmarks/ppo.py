"""Agent steps per second of recurrent PPO on Pong, beside stock ``sb3_contrib.RecurrentPPO`` at the same settings.

8 environments x 128 steps, 4 epochs of minibatches of 256, Nature CNN, LSTM 512 shared by actor and critic. All
contestants step the same native vector environment, so that only the learners differ, and each has a process of its
own, because our learners change how the whole process allocates memory. The STM learns from sequences of 32 steps, the
others from whole rollouts.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.measure import Group, Spread, Table, Target, interleave, peak_memory, per_second, speedup
from relmem.agents import MemoryPPO
from relmem.envs import make_vec_env

GAME = "PongNoFrameskip-v4"
SKIPS = (0, 4, 16, 32)
N_ENVS = 8
STOCK, LSTM, STM = "stock RecurrentPPO, LSTM 512", "relmem PPO, LSTM 512", "relmem PPO, STM n=8 d=64"
CORES = {
    LSTM: {"core": "lstm", "core_kwargs": {"hidden_size": 512}},
    STM: {"core": "stm", "core_kwargs": {"queries": 8}},
}
PHASES = ("environment", "inference and the rest of collection", "update")


def measure(quick: bool, rounds: int) -> Group:
    rates, parts, targets = [], [], []
    for skip in SKIPS[1:2] if quick else SKIPS:
        learners = {name: Learner(name, skip, quick) for name in (STOCK, LSTM, *([STM] if skip == 4 else []))}
        seconds = interleave({name: learner.seconds_per_step for name, learner in learners.items()}, rounds)
        speedups = {name: speedup(seconds[STOCK], mine) for name, mine in seconds.items()}
        rates += [
            {"skip": skip, "learner": name, "agent steps/s": per_second(1, mine), "times as fast": speedups[name]}
            for name, mine in seconds.items()
        ]
        phases = [{"learner": name} | learner.milliseconds() for name, learner in learners.items()]
        if skip == 4:
            targets.append(Target(f"{LSTM}, Pong skip 4, agent steps/s against {STOCK}", speedups[LSTM], 5, 7))
            targets.append(Target(f"{STM}, Pong skip 4, agent steps/s against {STOCK}", speedups[STM], 2.5, 4))
            parts = phases
    gib = [{"learner": name, "GiB": peak_memory(one_rollout, name, quick)} for name in (STOCK, LSTM, STM)]
    return Group(
        targets,
        [
            Table("PPO on Pong", "Frame skips as in the paper; 0 is none.", rates),
            Table("Where PPO's time goes", "Skip 4, milliseconds per rollout of 1,024 agent steps and update.", parts),
            Table("Peak memory of PPO", "Beyond the imports: environments, rollout and update.", gib),
        ],
    )


def make_learner(name: str, skip: int, quick: bool) -> OnPolicyAlgorithm:
    env = make_vec_env(GAME, N_ENVS, frame_skip=skip, seed=0)
    steps, batch = (4, 8) if quick else (128, 256)
    settings: dict[str, Any] = dict(n_steps=steps, batch_size=batch, n_epochs=4, clip_range=0.1, ent_coef=0.01, seed=0)
    if name == STOCK:
        lstm = {"lstm_hidden_size": 512, "shared_lstm": True, "enable_critic_lstm": False}
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
        self.phases: list[tuple[float, float, float]] = []  # seconds of each round

    def seconds_per_step(self) -> float:
        """Collect a rollout and learn from it."""
        steps, phases = self._process.submit(_round).result()
        self.phases.append(phases)
        return sum(phases) / steps

    def milliseconds(self) -> dict[str, Spread]:
        """Of each phase, in a round; ends the process."""
        self._process.shutdown()
        rounds = zip(*self.phases[1:], strict=True)  # without the one that warms up
        return {name: Spread.of([1e3 * s for s in seconds]) for name, seconds in zip(PHASES, rounds, strict=True)}


_model: OnPolicyAlgorithm
_clocks: dict[str, float]


def _start(name: str, skip: int, quick: bool) -> None:
    global _model
    _model = make_learner(name, skip, quick)
    env = _model.get_env()
    for owner, method in ((env, "step_async"), (env, "step_wait"), (_model, "train")):
        setattr(owner, method, _clocked(method, getattr(owner, method)))


def _round() -> tuple[int, tuple[float, float, float]]:
    """Agent steps, and seconds of each phase."""
    global _clocks
    _clocks = dict.fromkeys(("step_async", "step_wait", "train"), 0.0)
    steps = _model.n_steps * N_ENVS
    begin = time.perf_counter()
    _model.learn(steps, reset_num_timesteps=False)
    total = time.perf_counter() - begin
    environment, update = _clocks["step_async"] + _clocks["step_wait"], _clocks["train"]
    return steps, (environment, total - environment - update, update)


def _clocked(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def clocked(*args: Any) -> Any:
        begin = time.perf_counter()
        try:
            return method(*args)
        finally:
            _clocks[name] += time.perf_counter() - begin

    return clocked
