"""Supervised tasks: one task per file, one contract (``base``), one registry."""

from .base import IGNORED, Batch, Task, VaryingLengthTask
from .nth_farthest import NthFarthest
from .registry import make_task, register_task, registered_tasks, task_options

__all__ = [
    "IGNORED",
    "Batch",
    "NthFarthest",
    "Task",
    "VaryingLengthTask",
    "make_task",
    "register_task",
    "registered_tasks",
    "task_options",
]
