"""``relmem tasks``: the supervised tasks that there are, and the level that needs no memory or no relations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..common.columns import columns
from ..common.output import stage
from ..tasks import make_task
from ..tasks.registry import registered_tasks
from .arguments import Arguments
from .listing import listing, summary

EXAMPLES = ["relmem tasks", "relmem tasks parity recall", "relmem tasks --json"]


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check the command line after ``relmem tasks``.

    :raises ValueError: if it asks for something impossible
    """
    about = "The supervised tasks at their defaults: metric, and what trivial strategies reach on the validation set."
    names = sorted(registered_tasks())
    return listing(Arguments("tasks", about, EXAMPLES), argv, "task", lambda: names, facts, table)


def table(found: list[dict[str, Any]]) -> str:
    rows = [
        [
            task["name"],
            task["metric"].replace("_", " ") + ("" if task["higher_is_better"] else " (low is good)"),
            ", ".join(f"{name} {level:.3g}" for name, level in task["trivial"].items()),
            task["about"],
        ]
        for task in found
    ]
    return columns(("task", "metric", "trivial levels", "what it is"), rows)


def facts(name: str) -> dict[str, Any]:
    """What there is to know of a task at its defaults."""
    task = make_task(name)
    with stage(f"drawing the validation set of {name}"):
        trivial = task.trivial("valid")
    return {
        "name": name,
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "trivial": trivial,
        "about": summary(type(task).__doc__ or ""),
    }
