"""RMC against its textbook step loop (``reference_rmc.py``)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Group, Table, Target, compare, require_agreement
from benchmarks.reference_rmc import reference_rmc
from relmem.agents.cores.rmc import RMCCore

INPUT_SIZE = 128
REFERENCE, OURS = "textbook loop, fp32", "relmem, fp32"


def measure(quick: bool, rounds: int) -> Group:
    T, B = (2, 2) if quick else (20, 32)
    title = f"RMC 8 slots x 128, T={T} B={B}, fwd+bwd"
    works = {name: training(name, T, B) for name in (REFERENCE, OURS)}
    require_agreement(works[OURS](), works[REFERENCE]())
    rows, speedups = compare(works, rounds)
    return Group([Target(f"{title}: {OURS} against {REFERENCE}", speedups[OURS], 3, 6)], [Table(title, "", rows)])


def training(contestant: str, T: int, B: int) -> Callable[[], list[Tensor]]:
    """The work of a contestant: outputs and gradients.

    :return: does the work and returns the outputs [T, B, O] and the gradient of the inputs [T, B, F]
    """
    torch.manual_seed(0)
    core = RMCCore(INPUT_SIZE, slots=8, heads=4, head_size=32)
    x, starts = torch.randn(T, B, INPUT_SIZE, requires_grad=True), torch.zeros(T, B, dtype=torch.bool)

    def work() -> list[Tensor]:
        core.zero_grad()
        x.grad = None
        state = core.initial_state(B)
        y, _ = core(x, state, starts) if contestant == OURS else reference_rmc(core, x, state.memory, starts)
        y.square().sum().backward()
        assert x.grad is not None
        return [y.detach(), x.grad]

    return work
