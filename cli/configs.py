"""``relmem configs``: the experiments that come with relmem."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ..common.columns import columns
from ..common.output import say
from .arguments import Arguments
from .config_files import find_config, shipped_configs
from .names import chosen, summary
from .options import parse


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check the command line after ``relmem configs``.

    :raises ValueError: if it asks for something impossible
    """
    parser = Arguments(
        "configs",
        "The configs that `relmem train --config NAME` finds, and what each trains.",
        ["relmem configs", "relmem configs memory", "relmem configs --json"],
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a config, or a part of names; default: all")
    parser.add_argument("--json", action="store_true", help="for scripts")
    args = parser.read(argv)
    names = chosen("config", args.names, shipped_configs())
    return lambda: show(names, args.json)


def show(names: Sequence[str], as_json: bool) -> int:
    found = [facts(name) for name in names]
    if as_json:
        say(json.dumps(found, indent=1))
        return 0
    rows = [
        [config["name"], config["on"], config["core"], config["by"], f"{config['length']:,}", config["about"]]
        for config in found
    ]
    say(columns(("config", "on", "core", "by", "steps or updates", "what it is"), rows))
    return 0


def facts(name: str) -> dict[str, Any]:
    """What a config trains; its comments begin with what it is."""
    job, config, *_ = parse(["--config", name])
    lines = find_config(name).read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    return {
        "name": name,
        "on": config[job.subject],
        "core": config["core.name"],
        "by": config["algo.name"] if job.kind == "agent" else "supervised",
        "length": config[job.total],
        "unit": job.unit,
        "about": summary(comment),
    }
