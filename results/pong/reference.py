"""What scripts reach in Pong that read the emulator's memory: the reference lines of the curves.

    python results/pong/reference.py    # six minutes on one core; writes reference.json

Two players, who act every ``skip`` frames as an agent does:

* *follows the ball*: moves the paddle towards the height where the ball is now, unless it is near enough. How near, and
  where on the paddle the ball is to hit, was chosen for each skip on seeds 1 and 2 out of 16 settings.
* *searches ahead*: tries sequences of actions on copies of the emulator, and plays the first that wins the point, else
  the first half of one that does not lose it. Sequences that lead to the same state are followed once, and of too many
  states some at random are kept. At skip 32 there are only 9 after three steps, since within one repeat the paddle
  crosses the court: in the games looked at, every sequence of actions loses the first point.

A game is cut off after 40,000 frames, and its return is then what it was so far.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from relmem.envs import make_atari_env

PLAYER, BALL_X, BALL_Y = 51, 49, 54  # addresses of heights and of the ball's column, which is 0 between two points
STAY, UP, DOWN = 0, 2, 3  # actions of the minimal set
# By skip: how many rows the ball may be from where the paddle is to hit it, and how far below PLAYER's row that is.
NEAR = {0: (2, 0), 4: (6, 3), 16: (6, 0), 32: (8, 0)}
SEARCH = {16: (32, 16), 32: (40, 64)}  # by skip: steps that are searched, states that are kept
MAX_FRAMES = 40_000

Player = Callable[..., Iterator[int]]


def follow(ale, skip: int, seed: int) -> Iterator[int]:
    """The actions of the player that follows the ball."""
    near, aim = NEAR[skip]
    while True:
        ram = ale.getRAM()
        below = int(ram[BALL_Y]) - int(ram[PLAYER]) - aim
        yield STAY if ram[BALL_X] == 0 or abs(below) <= near else (DOWN if below > 0 else UP)


def search(ale, skip: int, seed: int) -> Iterator[int]:
    """The actions of the player that searches ahead."""
    rng = np.random.default_rng(seed)
    while True:
        yield from plan(ale, skip, rng)


def plan(ale, skip: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A sequence that wins the point; else the first half of one that holds it, or of the one that does so longest."""
    codes = ale.getMinimalActionSet()
    start = ale.cloneState()
    states = [(start, ())]
    depth, kept = SEARCH[skip]
    for _ in range(depth):
        found = {}
        for state, path in states:
            for action in (STAY, UP, DOWN):
                ale.restoreState(state)
                points = sum(ale.act(codes[action]) for _ in range(skip))
                if points > 0:
                    ale.restoreState(start)
                    return (*path, action)
                if points == 0:
                    after = ale.cloneState()
                    found.setdefault(after.serialize(), (after, (*path, action)))
        if not found:  # every sequence loses the point
            break
        states = [list(found.values())[i] for i in rng.permutation(len(found))[:kept]]
    ale.restoreState(start)
    path = states[0][1]
    return path[: max(1, len(path) // 2)] or (STAY,)


def play(player: Player, skip: int, seed: int) -> dict[str, int | bool]:
    """One game: points won and lost, its frames, and whether it came to its end."""
    env = make_atari_env("pong", skip, image_size=10, max_frames=MAX_FRAMES)
    env.reset(seed=seed)
    won = lost = steps = 0
    for action in player(env.unwrapped.ale, skip, seed):
        _, reward, terminated, truncated, _ = env.step(action)
        won, lost, steps = won + (reward > 0), lost + (reward < 0), steps + 1
        if terminated or truncated:
            break
    return {"seed": seed, "won": won, "lost": lost, "frames": steps * max(skip, 1), "ended": terminated}


def main() -> None:
    """Play, print, and write what came out."""
    lines: dict[str, dict[str, float]] = {}
    games: dict[str, dict[str, list]] = {}
    for name, player, skips, seeds in (
        ("follows the ball", follow, (0, 4, 16, 32), range(101, 106)),
        ("searches ahead", search, (16, 32), range(101, 103)),
    ):
        for skip in skips:
            played = [play(player, skip, seed) for seed in seeds]
            mean = float(np.mean([game["won"] - game["lost"] for game in played]))
            lines.setdefault(f"skip_{skip}", {})[f"script that {name}"] = round(mean, 2)
            games.setdefault(f"skip_{skip}", {})[name] = played
            print(f"skip {skip}, {name}: mean return {mean:+.1f} of {len(played)} games", flush=True)
            for game in played:
                print("   ", game, flush=True)
    content = {"lines": lines, "games": games}
    Path(__file__).with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
