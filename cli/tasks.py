"""``relmem tasks``: the supervised tasks that there are, and the level that needs no memory or no relations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ..common.columns import columns
from ..common.output import say, stage
from ..tasks import make_task
from ..tasks.registry import registered_tasks
from .arguments import Arguments
from .names import chosen, summary


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check the command line after ``relmem tasks``.

    :raises ValueError: if it asks for something impossible
    """
    parser = Arguments(
        "tasks",
        "The supervised tasks at their defaults: metric, and what trivial strategies reach on the validation set.",
        ["relmem tasks", "relmem tasks parity recall", "relmem tasks --json"],
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a task, or a part of names; default: all")
    parser.add_argument("--json", action="store_true", help="for scripts")
    args = parser.read(argv)
    names = chosen("task", args.names, sorted(registered_tasks()))
    return lambda: show(names, args.json)


def show(names: Sequence[str], as_json: bool) -> int:
    found = [facts(name) for name in names]
    if as_json:
        say(json.dumps(found, indent=1))
        return 0
    rows = [
        [
            task["name"],
            task["metric"].replace("_", " ") + ("" if task["higher_is_better"] else " (low is good)"),
            ", ".join(f"{name} {level:.3g}" for name, level in task["trivial"].items()),
            task["about"],
        ]
        for task in found
    ]
    say(columns(("task", "metric", "trivial levels", "what it is"), rows))
    return 0


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
