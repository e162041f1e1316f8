"""RMC against its textbook step loop (``tests/naive/rmc.py``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import Group, Table, Target, compare, require_agreement
from relmem.agents.cores.rmc import RMCCore, RMCState
from tests.naive.rmc import textbook_rmc

INPUT_SIZE = 128
REFERENCE, OURS = "textbook loop, fp32", "relmem, fp32"


def measure(quick: bool, rounds: int) -> Group:
    T, B = (2, 2) if quick else (20, 32)
    title = f"RMC 8 slots x 128, T={T} B={B}, fwd+bwd"
    works = {name: training(name, T, B) for name in (REFERENCE, OURS)}
    require_agreement(works[OURS](), works[REFERENCE]())
    rows, speedups = compare(works, rounds)
    target = Target(f"{title}: {OURS} against {REFERENCE}", speedups[OURS], 1, 1.2)
    return Group([target], [Table(title, "", rows)])


def training(contestant: str, T: int, B: int) -> Callable[[], list[Tensor]]:
    """The work of a contestant: outputs and gradients.

    :return: does the work and returns the outputs [T, B, O] and the gradient of the inputs [T, B, F]
    """
    torch.manual_seed(0)
    core = RMCCore(INPUT_SIZE, slots=8, heads=4, head_size=32)
    x, starts = torch.randn(T, B, INPUT_SIZE, requires_grad=True), torch.zeros(T, B, dtype=torch.bool)
    memory = core.initial_state(B).memory
    reference = partial(textbook_rmc, core, memory=memory, starts=starts)
    ours = partial(core_outputs, core, memory=memory, starts=starts)
    forward = reference if contestant == REFERENCE else ours

    def work() -> list[Tensor]:
        core.zero_grad()
        x.grad = None
        y, _ = forward(x)
        y.square().sum().backward()
        assert x.grad is not None
        return [y.detach(), x.grad]

    return work


def core_outputs(core: RMCCore, x: Tensor, memory: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """As ``textbook_rmc``, by the core."""
    y, state = core(x, RMCState(memory), starts)
    return y, state.memory
