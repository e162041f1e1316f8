"""Supervised tasks: one task per file, one contract (``base``), one registry."""

from .associative_retrieval import AssociativeRetrieval
from .base import IGNORED, Batch, Task, VaryingLengthTask
from .check import check_task
from .convex_hull import ConvexHull
from .copy import Copy
from .minimum_spanning_tree import MinimumSpanningTree
from .modular_arithmetic import ModularArithmetic
from .multi_query_associative_recall import MultiQueryAssociativeRecall
from .nth_farthest import NthFarthest
from .parity import Parity
from .priority_sort import PrioritySort
from .registry import make_task, register_task, registered_tasks, task_options
from .relational_associative_recall import RelationalAssociativeRecall
from .shortest_path import ShortestPath
from .tsp import TravellingSalesman

__all__ = [
    "IGNORED",
    "AssociativeRetrieval",
    "Batch",
    "ConvexHull",
    "Copy",
    "MinimumSpanningTree",
    "ModularArithmetic",
    "MultiQueryAssociativeRecall",
    "NthFarthest",
    "Parity",
    "PrioritySort",
    "RelationalAssociativeRecall",
    "ShortestPath",
    "Task",
    "TravellingSalesman",
    "VaryingLengthTask",
    "check_task",
    "make_task",
    "register_task",
    "registered_tasks",
    "task_options",
]
