"""Which options the `default` preset of STM should have: one change at a time, on three small memory tasks.

    python results/ablation/default_preset.py              # the recorded table, on seeds 0 and 1
    python results/ablation/default_preset.py --seeds 100  # for trying things out: prints only

Every run trains a core of n = 2, d = r = 16 for the same number of batches, on one processor core. The figure is the
mean held-out accuracy over the run, so that it rewards learning early as well as learning at all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relmem.agents import make_core
from relmem.experiment.provenance import commit

SEEDS = [0, 1]
FOLDER = Path(__file__).parent
SYMBOLS = 8
BATCH = 64
ITERATIONS = 250
EVALUATIONS = 5

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "item_update = sum": {"item_update": "sum"},
    "gated = false": {"gated": False},
    "normalized_input = false": {"normalized_input": False},
    "write = auto": {"write": "auto"},
    "qkv_norm = items": {"qkv_norm": "items"},
    "relation_update = leak": {"relation_update": "leak"},
    "relation_update = rebuild": {"relation_update": "rebuild"},
    "readout_norm = false": {"readout_norm": False},
    "input_skip = false": {"input_skip": False},
    "alpha_start = 0": {"alpha_start": 0.0},
    "preset = released": {"preset": "released"},
}


def remember_first(batch: int) -> tuple[Tensor, Tensor]:
    """Name the first of 8 symbols; the other 7 are distractors. Chance 1/8."""
    symbols = torch.randint(SYMBOLS, (8, batch))
    x = F.one_hot(symbols, SYMBOLS).float()  # [T, B, F]
    return x, symbols[0]


def associative_recall(batch: int) -> tuple[Tensor, Tensor]:
    """Four key-value pairs, then a key: name its value. Chance 1/8."""
    keys = torch.rand(SYMBOLS, batch).argsort(dim=0)[:4]  # [K, B], all different
    values = torch.randint(SYMBOLS, (4, batch))
    asked = torch.randint(4, (1, batch))
    x = torch.zeros(5, batch, 2 * SYMBOLS)  # [T, B, F]
    x[:4] = torch.cat([F.one_hot(keys, SYMBOLS), F.one_hot(values, SYMBOLS)], dim=2)
    x[4, :, :SYMBOLS] = F.one_hot(keys.gather(0, asked)[0], SYMBOLS)
    return x, values.gather(0, asked)[0]


def farthest(batch: int) -> tuple[Tensor, Tensor]:
    """Four points of the plane, then the number of one of them: name the point farthest from it. Chance 1/3, since
    no point is the farthest from itself."""
    points = torch.rand(4, batch, 2) * 2 - 1
    asked = torch.randint(4, (batch,))
    distances = (points - points[asked, torch.arange(batch)]).norm(dim=2)  # [4, B]
    x = torch.zeros(5, batch, 6)  # [T, B, F]
    x[:4, :, :2] = points
    x[:4, :, 2:] = torch.eye(4).unsqueeze(1)
    x[4, :, 2:] = F.one_hot(asked, 4)
    return x, distances.argmax(dim=0)


TASKS: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {
    "remember first": remember_first,
    "associative recall": associative_recall,
    "farthest point": farthest,
}


def train(task: Callable[[int], tuple[Tensor, Tensor]], options: dict[str, Any], seed: int) -> list[float]:
    """Train one core on one task -> its held-out accuracy at equal intervals."""
    torch.manual_seed(seed)
    held_out = task(512)
    core = make_core("stm", held_out[0].shape[2], 8, queries=2, item_size=16, relation_size=16, **options)
    optimizer = torch.optim.Adam(core.parameters(), lr=3e-3)
    accuracies = []
    for iteration in range(1, ITERATIONS + 1):
        x, target = task(BATCH)
        loss = F.cross_entropy(answer(core, x), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(core.parameters(), 1.0)
        optimizer.step()
        if iteration % (ITERATIONS // EVALUATIONS) == 0:
            with torch.no_grad():
                accuracies.append((answer(core, held_out[0]).argmax(1) == held_out[1]).float().mean().item())
    return accuracies


def answer(core: torch.nn.Module, x: Tensor) -> Tensor:
    """Logits after the last step [B, classes]."""
    starts = torch.zeros(x.shape[:2], dtype=torch.bool)
    return core(x, core.initial_state(x.shape[1]), starts)[0][-1]


def table(results: dict[str, dict[str, list[list[float]]]]) -> str:
    """Markdown: a row per variant; mean over seeds of the mean accuracy, and in brackets each seed's last accuracy."""
    lines = [f"| variant | {' | '.join(TASKS)} | mean |", "|---" * (len(TASKS) + 2) + "|"]
    for variant, by_task in results.items():
        means, cells = [], []
        for task in TASKS:
            runs = by_task[task]
            means.append(statistics.mean(statistics.mean(run) for run in runs))
            cells.append(f"{means[-1]:.3f} ({' '.join(f'{run[-1]:.2f}' for run in runs)})")
        lines.append(f"| {variant} | {' | '.join(cells)} | {statistics.mean(means):.3f} |")
    return "\n".join(lines)


def save(record: dict[str, Any]) -> None:
    """Write the figures as JSON and as a table."""
    (FOLDER / "default_preset.json").write_text(json.dumps(record, indent=1) + "\n")
    text = f"""# Ablation of STM's default preset

One option changed at a time, on three small memory tasks (n = 2, d = r = 16, {ITERATIONS} batches of {BATCH},
Adam at 3e-3). Held-out accuracy, averaged over the run and over seeds {record["seeds"]}; in brackets what each seed
ended at. Chance is 0.125, 0.125 and 0.333.

{table(record["accuracy"])}

`{record["command"]}` at commit {record["commit"]}, torch {record["torch"]}, one thread,
{record["cpu_seconds"]} s of processor time.
"""
    (FOLDER / "default_preset.md").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    args = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {
        "command": " ".join(["python", "results/ablation/default_preset.py", *sys.argv[1:]]),
        "commit": commit(),
        "torch": torch.__version__,
        "seeds": args.seeds,
        "accuracy": {},
    }
    for variant in args.only:
        record["accuracy"][variant] = {
            name: [train(task, VARIANTS[variant], seed) for seed in args.seeds] for name, task in TASKS.items()
        }
        record["cpu_seconds"] = round(time.process_time())
        print(table({variant: record["accuracy"][variant]}).splitlines()[-1], flush=True)
    if (args.only, args.seeds) == (list(VARIANTS), SEEDS):
        save(record)


if __name__ == "__main__":
    main()
