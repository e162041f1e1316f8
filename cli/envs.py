"""``relmem envs``: the environments that ``--env.id`` finds, those of the extras that are installed too."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from ..common.columns import columns
from ..common.output import say, stage
from ..envs import registered_envs
from ..envs.suites import SUITES
from .arguments import Arguments
from .names import chosen

EXAMPLES = 3


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check the command line after ``relmem envs``.

    :raises ValueError: if it asks for something impossible
    """
    parser = Arguments(
        "envs",
        "The registered environments, by package. Without a name, relmem's own in full, and of the "
        "other packages how many there are. Any id of another package is written package:id.",
        ["relmem envs", "relmem envs pong", "relmem envs popgym MiniGrid-Memory", "relmem envs --json"],
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="an id, or a part of ids; default: an overview")
    parser.add_argument("--json", action="store_true", help="every id, for scripts")
    args = parser.read(argv)
    with stage("importing environments"):
        registered = registered_envs()
    names = chosen("environment", args.names, registered)
    found = [facts(gymnasium.registry[name], registered[name]) for name in names]
    return lambda: show(found, in_full=bool(args.names), as_json=args.json)


def show(found: Sequence[dict[str, Any]], in_full: bool, as_json: bool) -> int:
    if as_json:
        say(json.dumps(found, indent=1))
        return 0
    rows = [
        [env["id"], env["package"], "" if env["max_steps"] is None else f"{env['max_steps']:,}"]
        for env in found
        if in_full or env["package"] == "relmem"
    ]
    say(columns(("id", "package", "steps at most"), rows))
    for package in [] if in_full else sorted({env["package"] for env in found} - {"relmem"}):
        ids = [env["id"] for env in found if env["package"] == package]
        say(f"\n{len(ids):,} of {package}, such as {', '.join(ids[:EXAMPLES])}")
    for package in [] if in_full else sorted({*SUITES.values()} - {env["package"] for env in found}):
        say(f"\nnone of {package}, which needs the extra [{package}]: pip install 'relmem[{package}]'")
    return 0


def facts(spec: EnvSpec, package: str) -> dict[str, Any]:
    """What is known of an environment before it is made."""
    return {"id": spec.id, "package": package, "max_steps": spec.max_episode_steps}
