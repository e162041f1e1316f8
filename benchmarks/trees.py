"""Two checkouts of relmem beside each other, by what both have: public names.

    git worktree add ../before REVISION
    make bench ARGS="--before ../before"

Each tree has a process of its own. They take turns at every piece of work, so that a ratio holds although the
machine's speed drifts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ != "__main__":  # there the modules of this folder cannot be imported, and are not needed
    from benchmarks.measure import ROOT, Group, Spread, Table, Target, speedup

PACKAGES = ("agents", "cli", "common", "configs", "envs", "experiment", "supervised", "tasks")
RELEASED = dict(preset="released", alpha_start=0.03, queries=8, item_size=96, relation_size=96)
PONG_STM = dict(queries=4, item_size=32, relation_size=32)
CORES: dict[str, tuple[str, dict[str, Any], int, int, int, bool]] = {  # name, options, features, T, B, bf16 products
    "STM released n=8 d=96, T=20 B=32": ("stm", RELEASED, 40, 20, 32, False),
    "STM released n=8 d=96, T=20 B=32, bf16 products": ("stm", RELEASED, 40, 20, 32, True),
    "STM released n=8 d=96, T=36 B=128": ("stm", RELEASED, 40, 36, 128, False),
    "STM default n=4 d=32, T=32 B=16": ("stm", PONG_STM, 512, 32, 16, False),
    "RMC 8 slots of 128, T=20 B=32": ("rmc", dict(slots=8), 40, 20, 32, False),
    "RMC 4 slots of 128, T=32 B=32": ("rmc", {}, 512, 32, 32, False),
    "LSTM 256, T=64 B=16": ("lstm", {}, 512, 64, 16, False),
    "GRU 256, T=64 B=16": ("gru", {}, 512, 64, 16, False),
}
LEARNERS = {
    "PPO LSTM 256, Pong skip 4, 16 x 64": dict(core="lstm", n_envs=16, n_steps=64),
    "PPO STM n=4 d=32, Pong skip 4, 32 x 32": dict(core="stm", core_kwargs=PONG_STM, n_envs=32, n_steps=32),
    "PPO RMC, Pong skip 4, 32 x 32": dict(core="rmc", n_envs=32, n_steps=32),
}


def measure(before: Path, quick: bool, rounds: int) -> Group:
    """Both trees at every piece of work.

    :param before: folder of the other checkout
    """
    rows, targets = [], []
    for name in [*CORES][3:4] if quick else [*CORES, *LEARNERS]:
        seconds = seconds_in_turns(before, ROOT, name, rounds)
        ratio = speedup(seconds["before"], seconds["now"])
        milliseconds = {tree: Spread.of([1e3 * s for s in mine]) for tree, mine in seconds.items()}
        rows.append(
            {"work": name, "ms before": milliseconds["before"], "ms now": milliseconds["now"], "times as fast": ratio}
        )
        if name.startswith("STM"):
            targets.append(Target(f"{name}: now against before", ratio, 0.8, 1.0))
    gib = [{"work": name} | peak_in_each(before, ROOT, name) for name in CORES if "B=128" in name and not quick]
    note = "A core's work is a forward and a backward pass, a learner's a rollout and the update from it."
    return Group(targets, [Table(f"Before ({before.name}) and now", note, rows), Table("Peak memory, GiB", "", gib)])


class Tree:
    """A checkout, in a process of its own.

    :param root: folder of the checkout
    :param environment: variables of the process, beside those of this one
    """

    def __init__(self, root: Path, environment: dict[str, str] | None = None) -> None:
        self._links = tempfile.TemporaryDirectory()
        package = Path(self._links.name, "relmem")
        package.mkdir()
        for name in PACKAGES:
            if (root / name).is_dir():
                (package / name).symlink_to((root / name).resolve())
        environment = os.environ | {"PYTHONPATH": self._links.name} | (environment or {})
        command = [sys.executable, str(Path(__file__).resolve())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
        )

    def measure(self, work: str) -> dict[str, float]:
        """Seconds of a piece of work, and the most memory [GiB] that the process has had so far."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(work + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._links.cleanup()


def seconds_in_turns(before: Path, now: Path, work: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of a piece of work in both trees, round by round; the first round warms up and is not counted."""
    trees = {"before": Tree(before), "now": Tree(now)}
    try:
        turns = [{name: tree.measure(work)["seconds"] for name, tree in trees.items()} for _ in range(rounds + 1)]
    finally:
        for tree in trees.values():
            tree.close()
    return {name: [turn[name] for turn in turns[1:]] for name in trees}


def peak_in_each(before: Path, now: Path, work: str) -> dict[str, float]:
    """GiB that a piece of work adds to what a process of each tree held before."""
    peaks = {}
    for name, root in (("before", before), ("now", now)):
        # With a fixed threshold: glibc otherwise raises it, and what is freed in pieces adds a GiB or two by chance.
        tree = Tree(root, {"MALLOC_MMAP_THRESHOLD_": str(2**17)})
        try:
            found = tree.measure(work)
        finally:
            tree.close()
        peaks[name] = found["peak"] - found["idle"]
    return peaks


# ---------------------------------------------------------------------- in the process of a tree


def core_work(name: str) -> Callable[[], object]:
    """Forward and backward pass of a core over a sequence in which some episodes begin."""
    import torch

    from relmem.agents import make_core

    core_name, options, features, T, B, mixed = CORES[name]
    torch.manual_seed(0)
    core = make_core(core_name, features, **options)
    x = torch.randn(T, B, features, requires_grad=True)
    starts = torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.003
    starts[0] = True

    def work() -> None:
        core.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            y, _ = core(x, core.initial_state(B), starts)
        y.square().sum().backward()

    return work


def learner_work(name: str) -> Callable[[], object]:
    """One rollout on Pong and the update from it."""
    from relmem.agents import MemoryPPO
    from relmem.envs import make_vec_env

    settings: dict[str, Any] = dict(LEARNERS[name])
    n_envs, policy = settings.pop("n_envs"), {key: settings.pop(key, None) for key in ("core", "core_kwargs")}
    env = make_vec_env("PongNoFrameskip-v4", n_envs, frame_skip=4, seed=0)
    model = MemoryPPO("MemoryPolicy", env, policy_kwargs=policy, clip_range=0.1, ent_coef=0.01, seed=0, **settings)
    return lambda: model.learn(n_envs * model.n_steps, reset_num_timesteps=False)


def high_water() -> float:
    """The most memory [GiB] that this process has had resident; NaN where the system does not tell."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def serve() -> None:
    """Read names of work, a line each; answer each by what it took."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed must not mix with the answers
    made: dict[str, Callable[[], object]] = {}
    for name in map(str.strip, sys.stdin):
        if name not in made:
            made[name] = core_work(name) if name in CORES else learner_work(name)
        idle, begin, calls = high_water(), time.perf_counter(), 0
        while (elapsed := time.perf_counter() - begin) < 0.5 or not calls:
            made[name]()
            calls += 1
        print(json.dumps({"seconds": elapsed / calls, "idle": idle, "peak": high_water()}), file=answers, flush=True)


if __name__ == "__main__":
    serve()
