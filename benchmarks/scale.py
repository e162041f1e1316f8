"""IMPALA and A3C over Ray on this machine: how fast, and what travels. RLlib's IMPALA beside them.

What they show and the model that rests on it: docs/scale.md.
"""

from __future__ import annotations

import csv
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import ray
from stable_baselines3.common.logger import configure

from benchmarks.a3c import Marks
from benchmarks.measure import Group, Spread, Table, flops, interleave, per_second, stopwatch
from relmem.agents import A3C, IMPALA
from relmem.agents.distributed import connect
from relmem.agents.distributed.fleet import LocalFleet, Result, weights_of
from relmem.agents.workers import WorkerAlgorithm

CARTPOLE = "relmem/MaskedCartPole-v0"
ENVS_PER_WORKER, T_MAX = 8, 20
WORKERS = (1, 2, 4)
SETTINGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # environment, its options, policy
    "masked CartPole, LSTM 64": (CARTPOLE, {}, {"core": "lstm", "core_kwargs": {"hidden_size": 64}, "net_arch": [64]}),
    "Pong at skip 4, nature, LSTM 256": (
        "PongNoFrameskip-v4",
        {"frame_skip": 4},
        {"core": "lstm", "core_kwargs": {"hidden_size": 256}, "features": "nature"},
    ),
}
NOTE = (
    "Actors, learner and emulators share this machine's processors: with more actors than processors the rates say how "
    "little is lost, not how much is won. Idle is the share of its time that the learner waits; age counts updates "
    "since an unroll's weights. Bytes are of one update: weights once, to each machine, and what the learner takes."
)


def measure(quick: bool, rounds: int) -> Group:
    settings = dict(list(SETTINGS.items())[: 1 if quick else None])
    workers = WORKERS[:1] if quick else WORKERS
    connect(None, max(WORKERS))
    rows = []
    for name in settings:
        for kind in (IMPALA,) if quick else (IMPALA, A3C):
            for n in workers:
                found = [run(kind, name, n, quick) for _ in range(1 if quick else min(rounds, 2))]
                rows.append({"setting": name, "algorithm": kind.__name__, "actors": n, **spreads(found)})
    peers = Table("RLlib's IMPALA at the same", *rllib(workers, quick))
    ray.shutdown()
    parts = [{"setting": name, **pieces(name, quick, rounds)} for name in settings]
    return Group(
        [],
        [
            Table("IMPALA and A3C over Ray", NOTE, rows),
            peers,
            Table("What an update of IMPALA takes", f"{ENVS_PER_WORKER} environments x {T_MAX} steps.", parts),
        ],
    )


def make(kind: type[WorkerAlgorithm], name: str, workers: int, **options: Any) -> Any:
    env, env_kwargs, policy_kwargs = SETTINGS[name]
    of_kind = {"unrolls": 1} if kind is IMPALA else {}
    return kind(
        "MemoryPolicy", env, workers=workers, envs_per_worker=ENVS_PER_WORKER, t_max=T_MAX, env_kwargs=env_kwargs,
        policy_kwargs=policy_kwargs, learning_rate=1e-4, clip_reward=1.0, seed=0, **of_kind | options,
    )  # fmt: skip


def run(kind: type[WorkerAlgorithm], name: str, workers: int, quick: bool) -> dict[str, float]:
    """What a training shows in its second half, when all workers have started."""
    model, marks = make(kind, name, workers, launcher="ray"), Marks()
    taken: dict[str, float] = {}
    update = model._update

    def noted(results: Sequence[Result], version: int) -> bool:
        taken["bytes to the learner"] = float(sum(len(pickle.dumps(result[:2], protocol=5)) for result in results))
        model._update = update  # once is enough
        return bool(update(results, version))

    model._update = noted
    with tempfile.TemporaryDirectory() as folder:
        model.set_logger(configure(folder, ["csv"]))
        model.learn((10 if quick else 150) * ENVS_PER_WORKER * T_MAX, callback=marks, log_interval=5)
        with Path(folder, "progress.csv").open(encoding="utf-8") as file:
            logged = list(csv.DictReader(file))
    half = marks.marks[len(marks.marks) // 2 :]
    (begin, before), (end, after) = half[0], half[-1]
    late = logged[len(logged) // 2 :]
    return {
        "agent steps/s": (after - before) / (end - begin),
        "learner idle": statistics.mean(float(row["time/learner_idle"]) for row in late),
        "age of weights": statistics.mean(float(row["time/weights_age"]) for row in late),
        "bytes of weights": float(sum(array.nbytes for array in weights_of(model.policy))),
        **taken,
    }


def spreads(found: Sequence[dict[str, float]]) -> dict[str, Spread]:
    return {name: Spread.of([one[name] for one in found]) for name in found[0]}


def pieces(name: str, quick: bool, rounds: int) -> dict[str, Any]:
    """Seconds of each part of IMPALA by itself, in this process, and what the learner computes."""
    model = make(IMPALA, name, 1)
    model.learn(ENVS_PER_WORKER * T_MAX)  # one update, which makes what an update needs
    with LocalFleet(model.job(), 1, seed=0) as fleet:
        fleet.publish(weights_of(model.policy), 1.0)
        results = fleet.results()
        batch = [next(results)]
        works: dict[str, Callable[[], object]] = {
            "unroll": lambda: next(results),
            "update": lambda: model._update(batch, 1),
            "weights": lambda: pickle.dumps(weights_of(model.policy), protocol=5),
        }
        seconds = interleave({part: stopwatch(work) for part, work in works.items()}, 1 if quick else rounds)
        amount = flops(works["update"])
    return {
        "ms of an unroll": Spread.of([1e3 * s for s in seconds["unroll"]]),
        "ms of an update": Spread.of([1e3 * s for s in seconds["update"]]),
        "ms to write the weights": Spread.of([1e3 * s for s in seconds["weights"]]),
        "MFLOP of an update": amount / 1e6,
        "GFLOP/s": per_second(1e-9 * amount, seconds["update"]),
    }


# -------------------------------------------------------------------- RLlib


def rllib(workers: Sequence[int], quick: bool) -> tuple[str, list[dict[str, Any]]]:
    """RLlib's IMPALA with an LSTM on masked CartPole, in equal batches.

    :return: a note and rows; no rows where RLlib is not installed
    """
    try:
        from ray.rllib.algorithms.impala import IMPALAConfig
        from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    except ImportError as error:
        return f"Not measured: {error}. It comes with `pip install 'ray[rllib]'`.", [{"RLlib": "not installed"}]
    from ray.tune.registry import register_env

    register_env(CARTPOLE, lambda _: gymnasium.make(f"relmem.envs:{CARTPOLE}"))
    rows = []
    for n in workers:
        lstm = DefaultModelConfig(use_lstm=True, lstm_cell_size=64, fcnet_hiddens=[64], max_seq_len=T_MAX)
        config = (
            IMPALAConfig()
            .environment(CARTPOLE)
            .env_runners(num_env_runners=n, num_envs_per_env_runner=ENVS_PER_WORKER, rollout_fragment_length=T_MAX)
            .rl_module(model_config=lstm)
            .training(train_batch_size_per_learner=ENVS_PER_WORKER * T_MAX, lr=1e-4)
            .learners(num_learners=0)
        )
        algorithm = config.build_algo()
        try:
            steps = [algorithm.train()["num_env_steps_sampled_lifetime"]]  # the workers start
            begin = time.perf_counter()
            while time.perf_counter() - begin < (1 if quick else 20):
                steps.append(algorithm.train()["num_env_steps_sampled_lifetime"])
            rate = (steps[-1] - steps[0]) / (time.perf_counter() - begin)
        finally:
            algorithm.stop()
        rows.append({"setting": next(iter(SETTINGS)), "actors": n, "agent steps/s": rate})
    return "With the defaults of its new API stack otherwise.", rows
