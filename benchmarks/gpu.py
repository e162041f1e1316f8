"""What a GPU is good for here, in under eight minutes: do the tests pass on it, and how fast is everything.

python -m benchmarks.gpu                 # on the first GPU, or where there is none on the CPU
python -m benchmarks.gpu --quick         # a smoke run: does it still run? Its figures mean nothing
python -m benchmarks.gpu --out FOLDER    # writes gpu.md and gpu.json too

Each part has its share of the time, and leaves out what it does not come to.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import run, stm
from benchmarks.measure import ROOT, Group, Table, require_agreement
from relmem.agents import MemoryCore, MemoryPPO, SupervisedTrainer, make_core, registered_cores
from relmem.envs import make_vec_env
from relmem.tasks.registry import make_task

MINUTES = {"tests": 2.0, "cores": 1.5, "ppo": 2.0, "supervised": 1.2, "stm": 0.8}  # 7.5 in all
CUDA_TESTS = ("tests/test_ppo.py", "tests/test_supervised.py", "tests/test_tasks.py")
SHAPES = ((20, 32), (128, 64))  # (T, B)
INPUT_SIZE = 512  # features of the Nature CNN
WAYS: dict[str, dict[str, Any] | None] = {  # of compiling; None: not at all
    "eager": None,
    "torch.compile": {},
    "torch.compile with CUDA graphs": {"mode": "reduce-overhead"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small shapes, nothing compiled")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--only", nargs="+", choices=MINUTES, default=list(MINUTES), metavar="PART", help=str([*MINUTES])
    )
    parser.add_argument("--out", type=Path, help="folder of the report")
    args = parser.parse_args()
    device, begin = torch.device(args.device), time.monotonic()
    about = run.conditions() | {"command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]])}
    if device.type == "cuda":
        about |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    parts = {"tests": tests, "cores": cores, "ppo": ppo, "supervised": supervised, "stm": stm_against_its_reference}
    tables = []
    for name in args.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        deadline = time.monotonic() + 60 * (0.05 if args.quick else MINUTES[name])
        tables.append(parts[name](device, args.quick, deadline))
    about["seconds"] = round(time.monotonic() - begin)
    report = run.markdown([Group([], tables)], about, args.quick)
    print(report)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "gpu.md").write_text(report)
        found = {"conditions": about, "tables": [dataclasses.asdict(table) for table in tables]}
        (args.out / "gpu.json").write_text(json.dumps(found, indent=1, default=str) + "\n")


def tests(device: torch.device, quick: bool, deadline: float) -> Table:
    """The tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "cuda", *CUDA_TESTS]
    if quick:
        command.append("--collect-only")
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=max(60.0, deadline - time.monotonic()),
            env=os.environ | {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")},
        )  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if line.startswith("FAILED") or " in " in line]
        rows = [{"exit code": str(done.returncode), "pytest says": line} for line in lines]
    except subprocess.TimeoutExpired:
        rows = [{"exit code": "-", "pytest says": "did not come to an end in its time"}]
    return Table("Tests that need a GPU", "Where there is none, they are skipped.", rows)


def cores(device: torch.device, quick: bool, deadline: float) -> Table:
    """Steps per second of every core, forward and backward."""
    rows = []
    for T, B in ((2, 2),) if quick else SHAPES:
        for name in registered_cores():
            if time.monotonic() > deadline:
                rows.append({"core": name, "T": T, "B": B, "forward, steps/s": "-", "forward and backward": "-"})
                continue
            core = make_core(name, 8 if quick else INPUT_SIZE).to(device)
            x = torch.randn(T, B, 8 if quick else INPUT_SIZE, device=device, requires_grad=True)
            starts = torch.zeros(T, B, dtype=torch.bool, device=device)
            works = (partial(work, core, x, starts) for work in (forward, forward_and_backward))
            rates = [T * B / seconds(work, device, quick) for work in works]
            rows.append({"core": name, "T": T, "B": B, "forward, steps/s": rates[0], "forward and backward": rates[1]})
    return Table("Cores at their defaults", f"{INPUT_SIZE} input features; steps of one sequence a second.", rows)


@torch.no_grad()
def forward(core: MemoryCore, x: Tensor, starts: Tensor) -> None:
    core(x, core.initial_state(x.shape[1]), starts)


def forward_and_backward(core: MemoryCore, x: Tensor, starts: Tensor) -> None:
    core.zero_grad()
    x.grad = None
    core(x, core.initial_state(x.shape[1]), starts)[0].sum().backward()


def ppo(device: torch.device, quick: bool, deadline: float) -> Table:
    """PPO on Pong: collection and update, each as it is, compiled, and with CUDA graphs."""
    rows = []
    for core in ("lstm",) if quick else ("lstm", "stm"):
        for part in ("act", "evaluate_sequence"):
            for way, options in ways(quick):
                if part == "evaluate_sequence" and options is None:
                    continue  # as in the row before
                if time.monotonic() > deadline:
                    break
                row: dict[str, Any] = {"core": core, "collection": "eager", "update": "eager"}
                row["collection" if part == "act" else "update"] = way
                with reported(row):
                    n_envs, n_steps = (2, 4) if quick else (64, 64)
                    env = make_vec_env("PongNoFrameskip-v4", n_envs, frame_skip=4, seed=0)
                    policy_kwargs = {"core": core, "features": "nature"}
                    model = MemoryPPO(
                        "MemoryPolicy", env, n_steps=n_steps, device=device, seed=0, policy_kwargs=policy_kwargs
                    )
                    if options is not None:
                        setattr(model.policy, part, torch.compile(getattr(model.policy, part), **options))
                    model.learn(n_envs * n_steps)  # compiles
                    clock = Clock(model, device)
                    model.learn((1 if quick else 4) * n_envs * n_steps, reset_num_timesteps=False)
                    row |= clock.rates(model.num_timesteps - n_envs * n_steps)
                rows.append(row)
    return Table("PPO on Pong at skip 4", "64 environments x 64 steps, nature features.", aligned(rows))


class Clock:
    """Seconds that a model collects and updates, from now on."""

    def __init__(self, model: MemoryPPO, device: torch.device) -> None:
        self.total, self.update = time.perf_counter(), 0.0
        train = model.train

        def timed() -> None:
            begin = time.perf_counter()
            train()
            wait(device)
            self.update += time.perf_counter() - begin

        model.train = timed  # type: ignore[method-assign]

    def rates(self, steps: int) -> dict[str, float]:
        total = time.perf_counter() - self.total
        rates = {"agent steps/s": steps / total, "collected/s": steps / (total - self.update)}
        return rates | {"learned from/s": steps / self.update}


def supervised(device: torch.device, quick: bool, deadline: float) -> Table:
    """Updates of supervised training, as they are, compiled, and with CUDA graphs."""
    rows = []
    for core in ("lstm",) if quick else ("lstm", "stm", "gated_delta_net"):
        for way, options in ways(quick):
            if time.monotonic() > deadline:
                break
            row: dict[str, Any] = {"core": core, "way": way}
            with reported(row):
                trainer = SupervisedTrainer(make_task("copy"), core, device=device, batch_size=4 if quick else 128)
                if options is not None:
                    trainer.model.forward = torch.compile(trainer.model.forward, **options)  # type: ignore[method-assign]
                update = partial(trainer._update, 1.0)
                row["updates/s"] = 1 / seconds(update, device, quick)
            rows.append(row)
    return Table("Supervised training, task copy", "Batches of 128.", aligned(rows))


def stm_against_its_reference(device: torch.device, quick: bool, deadline: float) -> Table:
    """The STM's fast path against the released formulation."""
    T, B = (2, 2) if quick else (20, 32)
    contestants = (stm.REFERENCE, stm.FP32, stm.BF16)
    works = {name: stm.training(name, "all", T, B, quick, device) for name in contestants}
    require_agreement(works[stm.FP32](), works[stm.REFERENCE](), tolerance=1e-3)
    taken = {name: seconds(work, device, quick) for name, work in works.items()}
    rows = [
        {"contestant": name, "ms": 1e3 * mine, "times as fast": taken[stm.REFERENCE] / mine}
        for name, mine in taken.items()
    ]
    return Table(f"STM n=8 d=96 r=96, T={T} B={B}, forward and backward", "", rows)


def ways(quick: bool) -> Sequence[tuple[str, dict[str, Any] | None]]:
    return list(WAYS.items())[: 1 if quick else None]


@contextmanager
def reported(row: dict[str, Any]) -> Iterator[None]:
    """What cannot be compiled is a finding too."""
    try:
        yield
    except Exception as error:
        row["fails"] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def aligned(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same columns in every row."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, "-") for name in columns} for row in rows]


def seconds(work: Callable[[], object], device: torch.device, quick: bool) -> float:
    """Of a call, after one or two that warm up."""
    for _ in range(1 if quick else 3):
        work()
    wait(device)
    begin, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - begin < (0.0 if quick else 0.25):
        work()
        calls += 1
        wait(device)
    return (time.perf_counter() - begin) / calls


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
