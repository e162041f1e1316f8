"""Agent steps per second of A3C on Pong: two workers of four environments, as in ``configs/pong/lstm_a3c.yaml``,
against one worker with one environment, and at every frame skip.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.measure import ROOT, Group, Table, Target, interleave, per_second, speedup
from relmem.agents import A3C

SKIPS = (0, 4, 16, 32)
CONFIG = ROOT / "configs" / "pong" / "lstm_a3c.yaml"
ONE, TWO = "1 worker x 1 environment", "2 workers x 4 environments"


def measure(quick: bool, rounds: int) -> Group:
    contestants: dict[str, Callable[[], float]] = {}
    for skip in SKIPS[1:2] if quick else SKIPS:
        contestants[f"{TWO}, skip {skip}"] = partial(seconds_per_step, skip, quick, workers=2, envs_per_worker=4)
    contestants[f"{ONE}, skip 4"] = partial(seconds_per_step, 4, quick, workers=1, envs_per_worker=1)
    seconds = interleave(contestants, rounds)
    ratio = speedup(seconds[f"{ONE}, skip 4"], seconds[f"{TWO}, skip 4"])
    rows = [{"workers": name, "agent steps/s": per_second(1, mine)} for name, mine in seconds.items()]
    name = f"A3C-LSTM, Pong skip 4, agent steps/s: {TWO} against {ONE}"
    return Group([Target(name, ratio, 4, 8)], [Table("A3C on Pong", "Once all workers are under way.", rows)])


class Marks(BaseCallback):
    """Notes when how many steps were taken."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[float, int]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.marks.append((time.perf_counter(), self.num_timesteps))


def seconds_per_step(skip: int, quick: bool, workers: int, envs_per_worker: int) -> float:
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    algorithm = config["algo"] | {"workers": workers, "envs_per_worker": envs_per_worker}
    policy_kwargs = {"core": config["core"].pop("name"), "core_kwargs": config["core"], **config["policy"]}
    algorithm["learning_rate"] = float(algorithm["learning_rate"])  # YAML reads 2e-4 as a text
    del algorithm["name"]
    env_kwargs = {"frame_skip": skip}
    model = A3C(
        "MemoryPolicy", config["env"]["id"], env_kwargs=env_kwargs, policy_kwargs=policy_kwargs, seed=0, **algorithm
    )
    marks = Marks()
    model.learn(400 if quick else 1500 * workers * envs_per_worker, callback=marks)
    # The second half: by then all workers have started.
    half = marks.marks[len(marks.marks) // 2 :]
    (begin, before), (end, after) = half[0], half[-1]
    return (end - begin) / (after - before)
