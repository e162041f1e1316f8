"""``relmem envs``: the environments that ``--env.id`` finds, those of the extras that are installed too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium

from ..common.columns import columns
from ..common.output import stage
from ..envs import registered_envs
from ..envs.suites import SUITES, package_of
from .arguments import Arguments
from .listing import listing

EXAMPLES = ["relmem envs", "relmem envs pong", "relmem envs popgym MiniGrid-Memory", "relmem envs --json"]
NAMED = 3  # environments of another package, where nobody asked for them


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check the command line after ``relmem envs``.

    :raises ValueError: if it asks for something impossible
    """
    about = (
        "The registered environments, by package. Without a name, relmem's own in full, and of the other packages how "
        "many there are. Any id of another package is written package:id."
    )
    return listing(Arguments("envs", about, EXAMPLES), argv, "environment", ids, facts, table)


def ids() -> list[str]:
    """Of all environments."""
    with stage("importing environments"):
        return list(registered_envs())


def table(found: list[dict[str, Any]]) -> str:
    """All of them or, where these are all there are, relmem's own and an overview."""
    overview = len(found) == len(gymnasium.registry)
    rows = [
        [env["id"], env["package"], "" if env["max_steps"] is None else f"{env['max_steps']:,}"]
        for env in found
        if not overview or env["package"] == "relmem"
    ]
    text = columns(("id", "package", "steps at most"), rows)
    if not overview:
        return text
    packages = {env["package"] for env in found}
    for package in sorted(packages - {"relmem"}):
        others = [env["id"] for env in found if env["package"] == package]
        text += f"\n\n{len(others):,} of {package}, such as {', '.join(others[:NAMED])}"
    for package in sorted({*SUITES.values()} - packages):
        text += f"\n\nnone of {package}, which needs the extra [{package}]: pip install 'relmem[{package}]'"
    return text


def facts(name: str) -> dict[str, Any]:
    """What is known of an environment before it is made."""
    spec = gymnasium.registry[name]
    return {"id": name, "package": package_of(spec), "max_steps": spec.max_episode_steps}
