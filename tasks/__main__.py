"""``python -m relmem.tasks`` prints the table of docs/tasks.md: shapes, metrics and trivial levels of every variant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import make_task, registered_tasks

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "associative_retrieval": [{"length": 50}],
    "nth_farthest": [{"objects": 4, "features": 8}],
    "relational_associative_recall": [{"variant": "as_described"}],
}
"""The variants of the benchmarks that differ in these figures from a task's defaults."""


def rows() -> Iterator[str]:
    """The lines of the table, in Markdown."""
    yield "| task | F | answer | metric | trivial level |"
    yield "|---|---|---|---|---|"
    for name in registered_tasks():
        for options in ({}, *VARIANTS.get(name, [])):
            yield _row(name, options)


def _row(name: str, options: dict[str, Any]) -> str:
    task = make_task(name, **options)
    title = f"`{name}`" + "".join(f" {option}={value}" for option, value in options.items())
    answer = {
        "class": f"1 of {task.output_size}",
        "classes": f"≤ {task.answer_steps} steps, 1 of {task.output_size}",
        "bits": f"≤ {task.answer_steps} steps, {task.output_size} bits",
    }[task.kind]
    unit = "{:.1%}" if task.higher_is_better else "{:.1f}"
    levels = ", ".join(f"{level}: {unit.format(value)}" for level, value in task.trivial().items())
    return f"| {title} | {task.input_size} | {answer} | `{task.metric}` | {levels} |"


if __name__ == "__main__":
    for row in rows():  # some levels take seconds to compute
        print(row, flush=True)
