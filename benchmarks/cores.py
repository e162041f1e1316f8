"""Throughput of every registered core, and how near the machine's matrix-product peak it comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.measure import Group, Table, flops, interleave, matmul_peaks, per_second, stopwatch
from relmem.agents.cores import MemoryCore, make_core, registered_cores

INPUT_SIZE = 512  # features of the Nature CNN
SHAPES = ((1, 16), (20, 32), (128, 64))  # (T, B): acting, small and large minibatches

NOTE = (
    "A step is one of one sequence. GFLOP/s are those of forward and backward, and count matrix products only: the "
    "last column is how near the core comes to the roofline."
)


def measure(quick: bool, rounds: int) -> Group:
    size = 512 if quick else 2048
    peaks = matmul_peaks(size, rounds)
    cores = {name: make_core(name, INPUT_SIZE) for name in registered_cores()}
    sizes = [
        {
            "core": name,
            "parameters": sum(p.numel() for p in core.parameters()),
            "state floats": core.state_size,
            "output": core.output_size,
        }
        for name, core in cores.items()
    ]
    rows = []
    for T, B in SHAPES[:1] if quick else SHAPES:
        works = {name: (forward(core, T, B), training(core, T, B)) for name, core in cores.items()}
        seconds = interleave({f"{name} {i}": stopwatch(works[name][i]) for name in works for i in (0, 1)}, rounds)
        for name, (_, train) in works.items():
            rate = per_second(1e-9 * flops(train), seconds[f"{name} 1"])
            rows.append(
                {
                    "core": name,
                    "T": T,
                    "B": B,
                    "forward, steps/s": per_second(T * B, seconds[f"{name} 0"]),
                    "forward and backward, steps/s": per_second(T * B, seconds[f"{name} 1"]),
                    "GFLOP/s": rate,
                    "of the fp32 peak": f"{rate.median / peaks['fp32']:.1%}",
                }
            )
    peak_rows = [{"format": name, "GFLOP/s": peak} for name, peak in peaks.items()]
    tables = [
        Table("Peak of matrix products", f"The best rate of products of matrices {size} x {size}.", peak_rows),
        Table("Cores at their defaults", f"{INPUT_SIZE} input features.", sizes),
        Table("Throughput of cores", NOTE, rows),
    ]
    return Group([], tables)


def forward(core: MemoryCore, T: int, B: int) -> Callable[[], object]:
    x, starts, state = torch.randn(T, B, INPUT_SIZE), torch.zeros(T, B, dtype=torch.bool), core.initial_state(B)
    return torch.no_grad()(partial(core, x, state, starts))


def training(core: MemoryCore, T: int, B: int) -> Callable[[], object]:
    """Forward and backward, to the inputs too, as features are learned with the core."""
    x, starts = torch.randn(T, B, INPUT_SIZE, requires_grad=True), torch.zeros(T, B, dtype=torch.bool)

    def work() -> None:
        core.zero_grad()
        x.grad = None
        core(x, core.initial_state(B), starts)[0].sum().backward()

    return work
