"""STM against its released formulation (``tests/naive/stm.py``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import Group, Spread, Table, Target, compare, peak_memory, require_agreement
from relmem.agents.cores.stm import STMCore
from relmem.agents.precision import has_native_bf16
from tests.naive.stm import released_stm

INPUT_SIZE = 40
SIZES = {"queries": 8, "item_size": 96, "relation_size": 96}
SMALL = {"queries": 2, "item_size": 8, "relation_size": 8}  # for smoke runs
REFERENCE, FP32, BF16 = "released formulation, fp32", "relmem, fp32", "relmem, bf16 products"

OUTPUTS = {"all": "every output used", "last": "last output used"}


def measure(quick: bool, rounds: int) -> Group:
    best = BF16 if has_native_bf16(torch.device("cpu")) else FP32
    targets, tables = [], []
    for outputs, T, B, least, stretch in (("all", 20, 32, 10, 15), ("last", 8, 256, 15, 30)):
        T, B = (2, 2) if quick else (T, B)
        title = f"STM n=8 d=96 r=96, T={T} B={B}, {OUTPUTS[outputs]}, fwd+bwd"
        works = {name: training(name, outputs, T, B, quick) for name in (REFERENCE, FP32, best)}
        require_agreement(works[FP32](), works[REFERENCE]())
        rows, speedups = compare(works, rounds if outputs == "all" else min(rounds, 3))  # the reference takes its time
        tables.append(Table(title, "", rows))
        targets.append(Target(f"{title}: {best} against {REFERENCE}", speedups[best], least, stretch))
        if outputs == "all":
            targets.append(Target(f"{title}: {FP32} against {REFERENCE}", speedups[FP32], 4, 6))
    return Group([*targets, memory(quick)], tables)


def memory(quick: bool) -> Target:
    T, B = (2, 2) if quick else (36, 128)
    reference, ours = (peak_memory(training, name, "all", T, B, quick) for name in (REFERENCE, FP32))
    ratio = None if reference is None or ours is None else Spread.of([reference / ours])
    return Target(f"STM n=8 d=96 r=96, T={T} B={B}, fwd+bwd, peak memory: {REFERENCE} over {FP32}", ratio, 10, 20)


def training(
    contestant: str, outputs: str, T: int, B: int, quick: bool, device: torch.device | str = "cpu"
) -> Callable[[], list[Tensor]]:
    """The work of a contestant: outputs of all steps or of the last one, and gradients.

    :return: does the work and returns the outputs [T or 1, B, O] and the gradient of the inputs [T, B, F]
    """
    torch.manual_seed(0)
    # The preset's alphas start at 0, where the relational memory would have no part in what is compared; large ones
    # make the recurrence chaotic, and rounding errors grow beyond comparison.
    core = STMCore(INPUT_SIZE, preset="released", alpha_start=0.03, **SMALL if quick else SIZES).to(device)
    products = torch.bfloat16 if contestant == BF16 else torch.float32
    x = torch.randn(T, B, INPUT_SIZE, device=device, requires_grad=True)
    ours = partial(core_outputs, core, outputs, products)
    forward = partial(released_stm, core) if contestant == REFERENCE else ours

    def work() -> list[Tensor]:
        core.zero_grad()
        x.grad = None
        y = forward(x)
        y = y[-1:] if outputs == "last" else y
        y.square().sum().backward()
        assert x.grad is not None
        return [y.detach(), x.grad]

    return work


def core_outputs(core: STMCore, outputs: str, products: torch.dtype, x: Tensor) -> Tensor:
    """Outputs [T, B, O], or [1, B, O] of the last step.

    :param products: format of the large matrix products
    """
    starts = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
    starts[0] = True
    with torch.autocast(x.device.type, torch.bfloat16, enabled=products == torch.bfloat16):
        return core(x, core.initial_state(x.shape[1]), starts, since=-1 if outputs == "last" else 0)[0]
