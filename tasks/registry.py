"""Tasks by name: ``make_task("nth_farthest", objects=4)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..common.options import Option
from ..common.registry import Registry
from .base import Task

TASKS = Registry[Task]("task")


def register_task(name: str) -> Callable[[type[Task]], type[Task]]:
    """Class decorator that makes a task available to ``make_task`` under ``name``.

    Its constructor takes options alone, and every option has a default.

    :raises ValueError: if the name is taken by another task
    """
    return TASKS.register(name)


def registered_tasks() -> tuple[str, ...]:
    """The names that ``make_task`` knows."""
    return TASKS.names()


def task_options(name: str) -> dict[str, Option]:
    """The options of a task, by name, as its constructor declares them.

    :raises ValueError: if the task is unknown
    """
    return TASKS.options(name)


def make_task(name: str, **options: Any) -> Task:
    """Build a task.

    :param name: one of ``registered_tasks()``
    :param options: the task's own options
    :raises ValueError: for an unknown task or option (naming the nearest valid one) or an option out of range
    """
    return TASKS.make(name, **options)
