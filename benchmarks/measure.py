"""What every benchmark measures with: contestants timed in turns, peak memory in a process of its own, the roofline."""

from __future__ import annotations

import importlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parent.parent
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Spread:
    """Median of several measurements, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)} to {number(self.high)})"


@dataclass(frozen=True)
class Target:
    """A ratio or a rate, and how large it should be.

    :param ratio: measured; None where it could not be
    """

    name: str
    ratio: Spread | None
    least: float
    stretch: float


@dataclass(frozen=True)
class Table:
    """Rows of equal columns; numbers and ``Spread`` are formatted where the table is printed."""

    title: str
    note: str
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Group:
    """What one group of benchmarks found."""

    targets: list[Target]
    tables: list[Table]


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def stopwatch(work: Callable[[], object], at_least: float = 0.05) -> Callable[[], float]:
    """A contestant for ``interleave``: seconds per call of ``work``, which is called until ``at_least`` have passed."""

    def seconds() -> float:
        calls, begin, elapsed = 0, time.perf_counter(), 0.0
        while elapsed < at_least:
            work()
            calls, elapsed = calls + 1, time.perf_counter() - begin
        return elapsed / calls

    return seconds


def timed(function: Callable[..., Any], seconds: dict[str, float], name: str) -> Callable[..., Any]:
    """The function, which adds what each call takes to ``seconds[name]``."""

    def clocked(*args: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*args)
        finally:
            seconds[name] += time.perf_counter() - begin

    return clocked


def interleave(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round. Every round runs all of them once, so that what else the machine does
    meets all alike; the first round warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, contestant in contestants.items():
            seconds[name].append(contestant())
            print(f"\r{f'round {round_}/{rounds}: {name}':<100}", end="", file=sys.stderr, flush=True)
    print(f"\r{'':<100}\r", end="", file=sys.stderr, flush=True)
    return {name: values[1:] for name, values in seconds.items()}


def speedup(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """How many times as fast, round by round."""
    return Spread.of([s / f for s, f in zip(slow, fast, strict=True)])


def per_second(amount: float, seconds: Sequence[float]) -> Spread:
    return Spread.of([amount / s for s in seconds])


def compare(works: dict[str, Callable[[], object]], rounds: int) -> tuple[list[dict[str, Any]], dict[str, Spread]]:
    """Time pieces of work beside each other.

    :return: a row of a table for each, and how many times as fast as the first it is
    """
    seconds = interleave({name: stopwatch(work) for name, work in works.items()}, rounds)
    reference = seconds[next(iter(works))]
    speedups = {name: speedup(reference, mine) for name, mine in seconds.items()}
    rows = [
        {
            "contestant": name,
            "ms": Spread.of([1e3 * s for s in mine]),
            "GFLOP/s": per_second(1e-9 * flops(works[name]), mine),
            "times as fast": speedups[name],
        }
        for name, mine in seconds.items()
    ]
    return rows, speedups


def require_agreement(ours: Sequence[Tensor], reference: Sequence[Tensor], tolerance: float = 1e-4) -> None:
    """:raises AssertionError: if what is to be compared in speed does not compute the same"""
    for mine, theirs in zip(ours, reference, strict=True):
        error = ((mine - theirs).abs().max() / theirs.abs().max()).item()
        assert error < tolerance, f"the reference differs from the core by {error:.1e} of its largest value"


# -------------------------------------------------------------------- memory


def peak_memory(function: Callable[..., Callable[[], object]], *arguments: object) -> float | None:
    """GiB that a piece of work needs at its peak, or None where the system does not tell.

    :param function: prepares and returns the work, given the arguments; a process of its own calls it
    """
    if not STATUS.exists():
        return None
    task = [function.__module__, function.__name__, *arguments]
    command = [sys.executable, "-m", "benchmarks.measure", json.dumps(task)]
    # Freed memory goes back to the system at once: else holes that glibc cannot use again count, by chance, gigabytes.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
    return float(result.stdout.splitlines()[-1])


def high_water() -> float:
    """The most memory [GiB] that this process has had resident."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


# -------------------------------------------------------------------- roofline


def matmul_peaks(size: int, rounds: int) -> dict[str, float]:
    """GFLOP/s of a product of two matrices [size, size], the best of several rounds, by format."""
    contestants = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b, out = (torch.ones(size, size, dtype=dtype) for _ in range(3))
        contestants[name] = stopwatch(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
    return {name: 2e-9 * size**3 / min(seconds) for name, seconds in interleave(contestants, rounds).items()}


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations in the matrix products and convolutions of ``work``, forward and backward."""
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        work()
    return counter.get_total_flops()


def _product_flops(_: Sequence[int], a: Sequence[int], b: Sequence[int], **__: Any) -> int:
    """Matrices a [..., M, K] and b [..., K, N], whose products are added to a third."""
    return 2 * math.prod(a) * b[-1]


def _lstm_flops(x: Sequence[int], weight_ih: Sequence[int], weight_hh: Sequence[int], *_: Any, **__: Any) -> int:
    """x [T, B, F], weights [4 * H, F] and [4 * H, H]; a product of [a, b] and [b, c] takes 2abc operations."""
    return 2 * x[0] * x[1] * weight_ih[0] * (weight_ih[1] + weight_hh[1])


UNCOUNTED: dict[Any, Any] = {  # torch has no formulas for products added in place, and none for its fused LSTM
    torch.ops.aten.addmm_: _product_flops,
    torch.ops.aten.baddbmm_: _product_flops,
    torch.ops.aten.mkldnn_rnn_layer: _lstm_flops,
    # Going back, there are two products for each.
    torch.ops.aten.mkldnn_rnn_layer_backward: lambda *shapes, **kwargs: 2 * _lstm_flops(*shapes, **kwargs),
}


if __name__ == "__main__":
    module, function, *arguments = json.loads(sys.argv[1])
    work = getattr(importlib.import_module(module), function)(*arguments)
    before = high_water()
    work()
    print(high_water() - before)
