"""Keep what a finished training run shows: its config, its curve and the figures read off its own logs.

    python benchmarks/record_run.py runs/pong_stm_1 results/pong/stm --commit abc1234 --conditions "..."

Nothing is typed by hand but the commit and the conditions: every figure comes from the run folder. ``results/pong``
and its like get a README with one row per run kept below it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from relmem.cli.callbacks import read_episodes
from relmem.cli.curve import running_mean

THRESHOLDS = (-10, 0, 10, 18)
PAUSE_SECONDS = 180.0  # a longer gap between two log entries is a pause of the run, not a part of it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--commit", required=True, help="that the run was started from")
    parser.add_argument("--conditions", default="", help="what else ran on the machine, interruptions and the like")
    args = parser.parse_args()

    args.result.mkdir(parents=True, exist_ok=True)
    for name in ("config.yaml", "versions.txt", "learning_curve.png"):
        shutil.copy(args.run / name, args.result / name)
    figures = dict(commit=args.commit, conditions=args.conditions, **read_figures(args.run))
    (args.result / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    write_table(args.result.parent)


def read_figures(run: Path) -> dict[str, object]:
    """The figures of one run folder."""
    steps, returns, _ = read_episodes(run / "episodes.csv").T
    means = running_mean(returns)
    seconds = log_seconds(run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    return dict(
        command=(run / "command.txt").read_text().splitlines()[0],
        seed=config["seed"],
        agent_steps=int(steps[-1]),
        episodes=len(returns),
        minutes=round(float(seconds[-1][1]) / 60, 1),
        mean_return_last_100=round(float(means[-1]), 2),
        best_mean_return_100=round(float(means.max()), 2),
        first_reached={
            str(level): None if not (means > level).any() else crossing(steps[np.argmax(means > level)], seconds)
            for level in THRESHOLDS
        },
    )


def log_seconds(run: Path) -> np.ndarray:
    """Training time [E, 2] as (agent step, seconds trained so far), pauses left out."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    entries = sorted((e.wall_time, e.step) for e in events.Scalars("time/fps"))
    wall = np.array([time for time, _ in entries])
    gaps = np.diff(wall, prepend=wall[0])
    return np.column_stack([[step for _, step in entries], np.cumsum(np.where(gaps > PAUSE_SECONDS, 0.0, gaps))])


def crossing(step: float, seconds: np.ndarray) -> dict[str, float]:
    return dict(agent_steps=int(step), minutes=round(float(np.interp(step, *seconds.T)) / 60, 1))


def write_table(folder: Path) -> None:
    """README of a folder of results, from the figures kept below it."""
    rows = {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/figures.json"))}
    lines = [
        f"# {folder.name}",
        "",
        "Return is the mean over the last 100 training episodes, from sampled actions. Written by"
        " `benchmarks/record_run.py` from the logs of each run.",
        "",
        "| run | return at the end | agent steps | minutes | above 0 after | above 10 after | seed | commit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, f in rows.items():
        above = [describe(f["first_reached"][level]) for level in ("0", "10")]
        lines.append(
            f"| [{name}]({name}/figures.json) | {f['mean_return_last_100']:+.1f} | {f['agent_steps']:,} | "
            f"{f['minutes']:.0f} | {above[0]} | {above[1]} | {f['seed']} | {f['commit']} |"
        )
    for name, f in rows.items():
        lines += ["", f"## {name}", "", f"`{f['command']}`", "", f["conditions"], "", f"![]({name}/learning_curve.png)"]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def describe(reached: dict[str, float] | None) -> str:
    return "never" if reached is None else f"{reached['agent_steps']:,} steps, {reached['minutes']:.0f} min"


if __name__ == "__main__":
    main()
