"""``relmem evaluate``: play episodes with a trained agent, and count what it gets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from ..agents import Evaluation, evaluate
from ..common.options import Count, require_option
from ..common.output import say, stage, warn
from ..experiment.agent import EVALUATION_ENVS
from ..experiment.progress import Progress
from .agents import Player, arguments, open_player

EXAMPLES = (
    "relmem evaluate runs/pong_stm_ppo_s0_2026-11-27_16-21-58",
    "relmem evaluate runs/pong_stm_ppo_s0_2026-11-27_16-21-58 --episodes 100 --stochastic --json",
    "relmem evaluate runs/pong_stm_ppo_s0_2026-11-27_16-21-58 --env.frame_skip 16",
    "relmem evaluate agent.zip --env.id CartPole-v1",
)


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Load the agent and make its environments.

    :param argv: the command line after ``relmem evaluate``
    :return: what plays
    :raises ValueError: if the command line asks for something impossible
    """
    parser = arguments(
        "evaluate",
        "Play episodes with a trained agent: mean, deviation, median and lengths, and every episode. They are added to "
        "the results.json of its run.",
        EXAMPLES,
        episodes=20,
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object, and nothing else")
    asked, overrides = parser.read_with_overrides(argv, ("env",))
    require_option("episodes", Count, asked.episodes)
    player = open_player(asked, overrides, min(EVALUATION_ENVS, asked.episodes))
    return lambda: execute(player, asked.episodes, asked.json)


def execute(player: Player, episodes: int, as_json: bool) -> int:
    """Play, tell, and write down."""
    try:
        with closing(player.env) as env, stage("playing"):
            result = _play(player, env, episodes, as_json)
    except FloatingPointError as error:  # of the environment: no fault of the program
        warn(str(error))
        return 1
    found = describe(result) | {
        "environment": player.name,
        "options": player.changed,
        "file": player.file.name,
        "steps": player.model.num_timesteps,
        "seed": player.seed,
        "deterministic": player.deterministic,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    say(json.dumps(found) if as_json else shown(found))
    if player.folder is not None:
        try:
            player.folder.add_evaluation(found)
        except OSError as error:
            warn(f"this evaluation is not in '{player.folder.results}': {error}")
        else:
            if not as_json:
                say(f"Added to {player.folder.results}.")
    return 0


def _play(player: Player, env: Any, episodes: int, silent: bool) -> Evaluation:
    model, deterministic = player.model, player.deterministic
    if silent:
        return evaluate(model, env, episodes, deterministic=deterministic)
    with closing(Progress(episodes, "episodes")) as bar:
        bar.start(0, "evaluation")
        return evaluate(model, env, episodes, None, lambda ended, _: bar.update(ended), deterministic)


def describe(result: Evaluation) -> dict[str, Any]:
    """The figures of an evaluation; the deviation is that of the population, as ``evaluate_policy`` gives it."""
    returns, lengths = np.array(result.returns), np.array(result.lengths)
    return {
        "episodes": len(returns),
        "mean": float(returns.mean()),
        "deviation": float(returns.std()),
        "median": float(np.median(returns)),
        "mean_length": float(lengths.mean()),
        "returns": result.returns,
        "lengths": result.lengths,
    }


def shown(found: dict[str, Any]) -> str:
    """An evaluation to be read by people."""
    actions = "the most probable actions" if found["deterministic"] else "sampled actions"
    returns, lengths = found["returns"], found["lengths"]
    rows = [
        ("", "mean", "deviation", "median", "least", "most"),
        ("return", *(f"{x:.2f}" for x in (*(found[key] for key in ("mean", "deviation", "median")), *_range(returns)))),
        ("length", *(f"{x:.1f}" for x in (np.mean(lengths), np.std(lengths), np.median(lengths), *_range(lengths)))),
    ]
    options = "".join(f", {name} {text}" for name, text in found["options"].items() if name != "env.id")
    return "\n".join(
        [
            f"{found['file']}, trained for {found['steps']:,} steps, in {found['environment']}{options}: "
            f"{found['episodes']} episode(s) of {actions}, seed {found['seed']}",
            "",
            *("  " + f"{row[0]:8}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in rows),
            "",
            "returns  " + " ".join(f"{value:g}" for value in returns),
            "lengths  " + " ".join(map(str, lengths)),
        ]
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
