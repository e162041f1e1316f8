"""Tasks by name: ``make_task("nth_farthest", objects=4)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..agents.cores.registry import unknown
from .base import Task

_TASKS: dict[str, type[Task]] = {}


def register_task(name: str) -> Callable[[type[Task]], type[Task]]:
    """Class decorator that makes a task available to ``make_task`` under ``name``.

    Its constructor takes options alone, and every option has a default.

    :raises ValueError: if the name is taken by another task
    """

    def decorator(task: type[Task]) -> type[Task]:
        taken = _TASKS.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (task.__module__, task.__qualname__):
            raise ValueError(f"a task named '{name}' is registered already")
        _TASKS[name] = task
        return task

    return decorator


def registered_tasks() -> tuple[str, ...]:
    """The names that ``make_task`` knows."""
    return tuple(_TASKS)


def task_factory(name: str) -> type[Task]:
    """The class registered under ``name``.

    :raises ValueError: if the task is unknown
    """
    if name not in _TASKS:
        raise ValueError(unknown("task", name, _TASKS))
    return _TASKS[name]


def task_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a task, by name, as the parameters of its constructor.

    :raises ValueError: if the task is unknown
    """
    return dict(inspect.signature(task_factory(name)).parameters)


def make_task(name: str, **options: Any) -> Task:
    """Build a task.

    :param name: one of ``registered_tasks()``
    :param options: the task's own options
    :raises ValueError: for an unknown task or option (naming the nearest valid one) or an option out of range
    """
    known = task_options(name)
    for option in options:
        if option not in known:
            raise ValueError(unknown(f"option of task '{name}'", option, known))
    return _TASKS[name](**options)
