"""Agent steps per second of A3C on Pong: two workers of four environments, as in ``configs/pong/lstm_a3c.yaml``,
against one worker with one environment, and at every frame skip.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from functools import partial
from typing import Any

import torch
import yaml
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.measure import ROOT, Group, Table, Target, interleave, number, per_second, speedup, timed
from relmem.agents import A3C
from relmem.agents.a3c.learner import SegmentLearner, Settings
from relmem.agents.a3c.shared import SharedOptimizer
from relmem.agents.worker_envs import build_env

CONFIG = ROOT / "configs" / "pong" / "lstm_a3c.yaml"
ONE, TWO = "1 worker x 1 environment, skip 4", "2 workers x 4 environments, skip 4"
RUNS = {  # workers, environments of each, frame skip
    ONE: (1, 1, 4),
    TWO: (2, 4, 4),
    "2 workers x 8 environments, skip 4": (2, 8, 4),
    "2 workers x 4 environments, skip 0": (2, 4, 0),
    "2 workers x 4 environments, skip 16": (2, 4, 16),
    "2 workers x 4 environments, skip 32": (2, 4, 32),
}


def measure(quick: bool, rounds: int) -> Group:
    runs = {name: RUNS[name] for name in (ONE, TWO)} if quick else RUNS
    contestants = {name: partial(seconds_per_step, *run, quick) for name, run in runs.items()}
    seconds = interleave(contestants, min(rounds, 3))  # each starts its processes anew, which takes its time
    target = Target(
        f"A3C-LSTM, Pong, agent steps/s: {TWO}, against {ONE}", speedup(seconds[ONE], seconds[TWO]), least=4, stretch=8
    )
    rows = [
        {"workers": name, "agent steps/s": per_second(1, mine), "times as fast": speedup(seconds[ONE], mine)}
        for name, mine in seconds.items()
    ]
    return Group(
        [target],
        [
            Table("A3C on Pong", "One torch thread and one emulator thread in each worker.", rows),
            Table("Where a worker's time goes", "Milliseconds per 1,024 agent steps; skip 4.", [phases(quick)]),
        ],
    )


class Marks(BaseCallback):
    """Notes when how many steps were taken."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[float, int]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.marks.append((time.perf_counter(), self.num_timesteps))


def phases(quick: bool) -> dict[str, Any]:
    """What a worker does with its time, measured in this process, on one thread."""
    model = make_model(1, 1 if quick else 8, 4)
    settings = Settings(**{name: getattr(model, name) for name in Settings._fields})
    shared = SharedOptimizer(model.policy.optimizer, multiprocessing.get_context("spawn"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with contextlib.closing(build_env(model._env_factory, model.envs_per_worker, 0)) as env:
        learner = SegmentLearner(model.policy, env, settings)
        seconds = dict.fromkeys(("environment", "inference and the rest of play", "gradient", "shared parameters"), 0.0)
        env.step_async, env.step_wait = (timed(f, seconds, "environment") for f in (env.step_async, env.step_wait))
        for segment in range(3 if quick else 60):
            if segment == 2:  # the first ones warm up
                seconds.update(dict.fromkeys(seconds, 0.0))
            timed(shared.load_into, seconds, "shared parameters")(learner.parameters)
            timed(learner.play, seconds, "inference and the rest of play")()
            gradients, _ = timed(learner.gradients, seconds, "gradient")(0.01)
            timed(shared.step, seconds, "shared parameters")(gradients, 1e-4)
    torch.set_num_threads(threads)
    seconds["inference and the rest of play"] -= seconds["environment"]
    steps = (segment - 1) * model.t_max * model.envs_per_worker
    return {name: number(1e3 * 1024 / steps * total) for name, total in seconds.items()}


def make_model(workers: int, envs_per_worker: int, skip: int) -> A3C:
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    algorithm = config["algo"] | {"workers": workers, "envs_per_worker": envs_per_worker}
    algorithm["policy_kwargs"] = {"core": config["core"].pop("name"), "core_kwargs": config["core"], **config["policy"]}
    algorithm["learning_rate"] = float(algorithm["learning_rate"])  # YAML reads 2e-4 as a text
    del algorithm["name"]
    return A3C("MemoryPolicy", config["env"]["id"], env_kwargs={"frame_skip": skip}, seed=0, **algorithm)


def seconds_per_step(workers: int, envs_per_worker: int, skip: int, quick: bool) -> float:
    model = make_model(workers, envs_per_worker, skip)
    marks = Marks()
    model.learn(600 if quick else 2000 + 600 * workers * envs_per_worker, callback=marks)
    # The second half: by then all workers have started.
    half = marks.marks[len(marks.marks) // 2 :]
    (begin, before), (end, after) = half[0], half[-1]
    return (end - begin) / (after - before)
