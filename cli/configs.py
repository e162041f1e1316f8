"""``relmem configs``: the experiments that come with relmem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..common.columns import columns
from .arguments import Arguments
from .config_files import find_config, shipped_configs
from .listing import listing, summary
from .options import parse

EXAMPLES = ["relmem configs", "relmem configs memory", "relmem configs --json"]


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check the command line after ``relmem configs``.

    :raises ValueError: if it asks for something impossible
    """
    about = "The configs that `relmem train --config NAME` finds, and what each trains."
    return listing(Arguments("configs", about, EXAMPLES), argv, "config", shipped_configs, facts, table)


def table(found: list[dict[str, Any]]) -> str:
    rows = [
        [config["name"], config["on"], config["core"], config["by"], f"{config['length']:,}", config["about"]]
        for config in found
    ]
    return columns(("config", "on", "core", "by", "steps or updates", "what it is"), rows)


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
