"""Keep what a finished training run shows: its config, its curve and the figures read off its own logs.

    python -m benchmarks.record_run runs/pong_stm_1 stm_s1 --conditions "..."

Nothing is typed by hand but the conditions: every figure comes from the run folder. Minutes count from the end of the
first rollout.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks import results
from relmem.experiment.episodes import read_episodes
from relmem.experiment.pictures import running_mean
from relmem.experiment.provenance import COMMIT

THRESHOLDS = (-10, 0, 10, 18)
CURVE_STEPS = 10_000  # agent steps between the points of the curve that is kept
PAUSE_SECONDS = 180.0  # a longer gap between two log entries is a pause of the run, not a part of it


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name", help="of the folder in results/pong")
    parser.add_argument("--commit", help="that the run was started from, where its versions.txt does not say")
    parser.add_argument("--conditions", required=True, help="what else ran on the machine, interruptions and the like")
    args = parser.parse_args(argv)
    commit = args.commit or read_commit(args.run)
    if commit is None:
        parser.error(f"{args.run / 'versions.txt'} names no commit: say it with --commit")

    result = results.PONG / args.name
    if result.exists():
        parser.error(f"{result} exists: choose another name, or remove it first")
    result.mkdir(parents=True)
    for name in ("config.yaml", "versions.txt", "learning_curve.png"):
        shutil.copy(args.run / name, result / name)
    figures = dict(commit=commit, conditions=args.conditions, **read_figures(args.run))
    (result / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    results.draw()


def read_commit(run: Path) -> str | None:
    """The commit that a run was started from, if it is known."""
    lines = (run / "versions.txt").read_text().splitlines()
    return next((line.removeprefix(COMMIT).split()[0] for line in lines if line.startswith(COMMIT)), None)


def read_figures(run: Path) -> dict[str, object]:
    """The figures of one run folder."""
    steps, returns = read_episodes(run / "episodes.csv")[:, :2].T
    means = running_mean(returns)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    seconds = log_seconds(events)
    config = yaml.safe_load((run / "config.yaml").read_text())
    return dict(
        command=(run / "command.txt").read_text().splitlines()[0],
        core=config["core"]["name"],
        algorithm=config["algo"]["name"],
        seed=config["seed"],
        agent_steps=int(steps[-1]),
        episodes=len(returns),
        minutes=round(float(seconds[-1][1]) / 60, 1),
        mean_return_last_100=round(float(means[-1]), 2),
        evaluation=final(events, "eval/mean_reward"),
        evaluation_games=final(events, "eval/episodes"),
        best_mean_return_100=round(float(means.max()), 2),
        first_reached={
            str(level): None if not (means > level).any() else crossing(steps[np.argmax(means > level)], seconds)
            for level in THRESHOLDS
        },
        curve=curve(steps, means, seconds),
    )


def curve(steps: np.ndarray, means: np.ndarray, seconds: np.ndarray) -> list[tuple[int, float, float]]:
    """Agent steps, minutes, and the mean return of the last 100 episodes."""
    points = [*range(CURVE_STEPS, int(steps[-1]), CURVE_STEPS), int(steps[-1])]
    episodes = [(step, int(np.searchsorted(steps, step, side="right"))) for step in points]
    return [(step, crossing(step, seconds)["minutes"], round(float(means[n - 1]), 2)) for step, n in episodes if n]


def final(events: EventAccumulator, name: str) -> float | None:
    """A figure of the final evaluation; None where no episode of it ended in time."""
    return round(events.Scalars(name)[-1].value, 2) if name in events.Tags()["scalars"] else None


def log_seconds(events: EventAccumulator) -> np.ndarray:
    """Training time [E, 2] as (agent step, seconds trained so far), pauses left out."""
    entries = sorted((e.wall_time, e.step) for e in events.Scalars("time/fps"))
    wall = np.array([time for time, _ in entries])
    gaps = np.diff(wall, prepend=wall[0])
    return np.column_stack([[step for _, step in entries], np.cumsum(np.where(gaps > PAUSE_SECONDS, 0.0, gaps))])


def crossing(step: float, seconds: np.ndarray) -> dict[str, float]:
    return dict(agent_steps=int(step), minutes=round(float(np.interp(step, *seconds.T)) / 60, 1))


if __name__ == "__main__":
    main()
