"""What each memory can hold: every registered core on three small tasks, with one recipe.

    python -m benchmarks.recall                    # whatever results/recall lacks; all of it takes twenty minutes or so
    python -m benchmarks.recall --only stm lstm    # these rows, anew

    delay   a marked symbol, then 20 others: which was it? Asked at each of the 20
    pairs   eight pairs of key and value, each in one step; then the keys alone, in another order: their values
    parity  bits, one a step: is the number of ones so far odd?

A core is a single small layer (``OPTIONS``) that learns until it has solved the task or its updates are over. The
figure is its accuracy on sequences that it has not seen.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relmem.agents import MemoryCore, make_core, registered_cores
from relmem.experiment.provenance import commit, processor

FILE = Path(__file__).parents[1] / "results" / "recall" / "recall.json"
COMMIT = commit()  # of the code that is running
SYMBOLS, DELAY, PAIRS, BITS = 4, 20, 8, 20
SEED, BATCH, EVALUATE_EVERY, HELD_OUT = 0, 64, 25, 512
LEARNING_RATE, MAX_GRAD_NORM = 5e-3, 1.0
SCORED = 8  # of a sequence's last answers: the first ones of a parity need no memory
SOLVED = 0.95  # a lower accuracy counts as a miss

SETTINGS = {
    "seed": SEED,
    "batch": BATCH,
    "learning_rate": LEARNING_RATE,
    "max_grad_norm": MAX_GRAD_NORM,
    "solved": SOLVED,
}

# Small, with 64 to 2,048 floats of state but for the windows; what is not named here is at its default.
OPTIONS: dict[str, dict[str, Any]] = {
    "lstm": {"hidden_size": 64},
    "gru": {"hidden_size": 64},
    "stm": {"queries": 2, "item_size": 16, "relation_size": 16},
    "rmc": {"slots": 2, "heads": 2, "head_size": 16},
    "gtrxl": {"hidden_size": 32, "window": 32},
    "lm2": {"slots": 4, "hidden_size": 32},
    "rmt": {"hidden_size": 32, "segment": 8},
    "armt": {"hidden_size": 32, "segment": 8},
    "lstm_stm": {"lstm_size": 32, "queries": 2, "item_size": 16, "relation_size": 16},
    "linear_attention": {"heads": 2, "key_size": 8, "value_size": 16},
    "correlation_matrix": {"heads": 2, "key_size": 8, "value_size": 16},
    "retnet": {"heads": 2, "key_size": 8, "value_size": 16},
    "gla": {"heads": 2, "key_size": 8, "value_size": 16},
    "mlstm": {"heads": 2, "key_size": 8, "value_size": 16},
    "fast_weights": {"hidden_size": 64},
    "weinet": {"hidden_size": 64},
    "shm": {"memory_size": 16},
    "rnn": {"hidden_size": 64},
    "min_gru": {"hidden_size": 64},
    "min_lstm": {"hidden_size": 64},
    "slstm": {"hidden_size": 64},
    "lru": {"hidden_size": 64},
    "rg_lru": {"hidden_size": 64},
    "ffm": {"hidden_size": 64, "memory_size": 16, "max_period": 64},
    "mamba": {"hidden_size": 64, "memory_size": 8},
    "mamba2": {"hidden_size": 64, "heads": 2, "key_size": 16},
    "delta_net": {"heads": 2, "key_size": 8, "value_size": 8},
    "gated_delta_net": {"heads": 2, "key_size": 8, "value_size": 8},
    "dnc": {"controller_size": 32, "cells": 8, "cell_size": 8, "read_heads": 1},
    "ntm": {"controller_size": 32, "cells": 8, "cell_size": 8, "read_heads": 1},
    "tpr": {"entity_size": 16, "relation_size": 8, "hidden_size": 32},
    "memory_layer": {"hidden_size": 64, "keys": 16, "top": 4, "heads": 1, "key_size": 16},
    "titans": {"memory_size": 16, "hidden_size": 16},
    "rwkv7": {"heads": 2, "head_size": 8, "rank": 4, "gate_rank": 8},
}


# The lines of the table: every registered core, and settings of some that change what they can do.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in registered_cores()} | {
    f"{name}, signed eigenvalues": (name, {"eigenvalues": "signed"}) for name in ("delta_net", "gated_delta_net")
}


class Problem(NamedTuple):
    """A batch of one task."""

    x: Tensor  # [T, B, F]
    answers: Tensor  # [S, B], classes, of the last S steps


def delay(batch: int) -> Problem:
    symbols = torch.randint(SYMBOLS, (1 + DELAY, batch))
    x = F.one_hot(symbols, SYMBOLS + 1).float()
    x[0, :, -1] = 1.0  # the mark
    return Problem(x, symbols[:1].expand(DELAY, batch))


def pairs(batch: int) -> Problem:
    keys = torch.rand(PAIRS, batch).argsort(dim=0)  # [K, B]
    values = torch.randint(SYMBOLS, (PAIRS, batch))
    shown = torch.cat([F.one_hot(keys, PAIRS), F.one_hot(values, SYMBOLS)], dim=2)
    order = torch.rand(PAIRS, batch).argsort(dim=0)
    asked = F.pad(F.one_hot(keys.gather(0, order), PAIRS), (0, SYMBOLS))
    return Problem(torch.cat([shown, asked]).float(), values.gather(0, order))


def parity(batch: int) -> Problem:
    bits = torch.randint(2, (BITS, batch))
    return Problem(F.one_hot(bits, 2).float(), bits.cumsum(dim=0) % 2)


class Task(NamedTuple):
    sample: Callable[[int], Problem]
    classes: int
    updates: int  # at most: what is not solved by then is a miss


TASKS = {
    "delay": Task(delay, SYMBOLS, 500),
    "pairs": Task(pairs, SYMBOLS, 3000),  # of which some gated recurrences need most
    "parity": Task(parity, 2, 600),
}


class Result(NamedTuple):
    accuracy: float  # the best of all evaluations
    updates: int  # until it had solved the task, or all
    seconds: float

    @property
    def solved(self) -> bool:
        return self.accuracy >= SOLVED


def train(name: str, task: str, **options: Any) -> Result:
    """Train a core on one task.

    :param options: instead of those in ``OPTIONS``
    """
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    sample, classes, updates = TASKS[task]
    held_out = sample(HELD_OUT)
    core = make_core(name, held_out.x.shape[2], classes, **OPTIONS.get(name, {}) | options)
    optimizer = torch.optim.Adam(core.parameters(), lr=LEARNING_RATE)
    begun, best = time.monotonic(), 0.0
    for update in range(1, updates + 1):
        problem = sample(BATCH)
        loss = F.cross_entropy(answer(core, problem).flatten(0, 1), problem.answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(core.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        if update % EVALUATE_EVERY == 0:
            with torch.no_grad():
                right = answer(core, held_out).argmax(2) == held_out.answers
            best = max(best, right[-SCORED:].float().mean().item())
            if best >= SOLVED:
                break
    return Result(best, update, time.monotonic() - begun)


def answer(core: MemoryCore, problem: Problem) -> Tensor:
    """Logits [S, B, classes] of the last S steps."""
    x, answers = problem
    starts = torch.zeros(x.shape[:2], dtype=torch.bool)
    return core(x, core.initial_state(x.shape[1]), starts, since=-len(answers))[0]


def row(label: str) -> dict[str, Any]:
    """All figures of one line of the table."""
    name, options = ROWS[label]
    input_size, classes = 2, 2  # those of parity
    core = make_core(name, input_size, classes, **OPTIONS.get(name, {}) | options)
    figures = {task: train(name, task, **options)._asdict() for task in TASKS}
    return {
        "commit": COMMIT,
        "processor": processor(),
        "core": name,
        "options": OPTIONS.get(name, {}) | options,
        "parameters": sum(parameter.numel() for parameter in core.parameters()),
        "state": core.state_size,
        **figures,
    }


def report(rows: dict[str, Any]) -> str:
    """The table as Markdown."""
    minutes = sum(figures[task]["seconds"] for figures in rows.values() for task in TASKS) / 60
    commits = ", ".join(sorted({figures["commit"] for figures in rows.values()}))
    processors = ", ".join(sorted({figures["processor"] for figures in rows.values()}))
    lines = [
        "# What each memory can hold",
        "",
        f"Every registered core on three small tasks: one layer, seed {SEED}, by `python -m benchmarks.recall` at",
        f"commit {commits}; {minutes:.0f} minutes on one core, beside other work, of {processors}. The script,",
        "[benchmarks/recall.py](../../benchmarks/recall.py), has tasks, sizes and the one recipe that all share;",
        "[recall.json](recall.json) has all figures.",
        "",
        f"* **delay**: a marked symbol of {SYMBOLS}, then {DELAY} others; which was it? Chance is {1 / SYMBOLS:.2f}.",
        f"* **pairs**: {PAIRS} pairs of key and value, each in one step; then the keys alone, in another order: their "
        f"values. Chance is {1 / SYMBOLS:.2f}; which values were shown, without their keys, is worth about 0.45.",
        f"* **parity**: {BITS} bits, one a step; is the number of ones so far odd? Chance is 0.50.",
        "",
        f"A number alone counts the updates, of {BATCH} sequences each, after which {SOLVED:.0%} of the last {SCORED}",
        f"answers were right on {HELD_OUT} new sequences. *In italics*: a miss, with the best accuracy in "
        + ", ".join(f"{task.updates:,} updates ({name})" for name, task in TASKS.items())
        + ".",
        "A miss says that this small layer did not learn the task by this recipe; it is no proof that it cannot.",
        "Parameters are those in parity, with two inputs and two outputs.",
        "",
        "| core | parameters | state, floats | delay | pairs | parity |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for label, figures in rows.items():
        cells = [_cell(Result(**figures[task])) for task in TASKS]
        lines.append(f"| {label} | {figures['parameters']:,} | {figures['state']:,} | {' | '.join(cells)} |")
    lines += [""]
    for task in TASKS:
        missed = [f"`{label}`" for label, figures in rows.items() if not Result(**figures[task]).solved]
        lines.append(f"Missed {task}: {', '.join(missed)}.\n")
    if untrained := [f"`{label}`" for label in ROWS if label not in rows]:
        lines.append(f"Not trained yet: {', '.join(untrained)}.\n")
    return "\n".join(lines)


def _cell(result: Result) -> str:
    return f"{result.updates:,}" if result.solved else f"*{result.accuracy:.2f}*"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help="rows of the table to train anew")
    known = json.loads(FILE.read_text())["rows"] if FILE.exists() else {}
    chosen = parser.parse_args().only or [label for label in ROWS if label not in known]
    write(known)
    for label in chosen:
        known[label] = row(label)
        print(f"{label:30}", *(f"{task} {_cell(Result(**known[label][task])):>6}" for task in TASKS), flush=True)
        write(known)
    return 0


def write(known: dict[str, Any]) -> None:
    """Keep the figures, and the table that is made of them, in the order of ``ROWS``."""
    rows = {label: known[label] for label in ROWS if label in known}
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps({"settings": SETTINGS, "rows": rows}, indent=2) + "\n")
    FILE.with_name("README.md").write_text(report(rows))


if __name__ == "__main__":
    raise SystemExit(main())
