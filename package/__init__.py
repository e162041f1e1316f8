"""relmem: memory cores for reinforcement-learning agents and supervised tasks.

This folder is the package itself, and the others of the repository are its subpackages. It is not called ``relmem``:
Python, started in the root of a clone, would take a folder of that name for the whole package.
"""

from importlib.metadata import version

__version__ = version("relmem")
