"""The command line: ``relmem train``, and ``python train.py`` in a clone of the repository."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

COMMANDS = ("train",)
HELP = """usage: relmem train [--config CONFIG] [options]

commands:
  train    train an agent, or a model on a task; relmem train --help lists the options
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    :param argv: sub-command and its arguments; None: those of this process
    :return: exit code: 0; 1 for an agent whose loss or environment is not finite any more; 2 for a mistake in the
        arguments; 128 plus its number for a signal
    """
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        print(HELP)
        return 0
    if os.getcwd() not in sys.path:  # where `module:name` of the user's own is looked for, after all else
        sys.path.append(os.getcwd())
    try:
        if command not in COMMANDS:
            raise ValueError(f"unknown command '{command}': choose from {', '.join(COMMANDS)}")
        from . import train  # not at the top: torch takes a second to import

        run = train.prepare(rest)
    except ValueError as error:
        print(f"relmem: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    try:
        return train.execute(run)
    except FloatingPointError as error:  # of the loss or of an environment: no fault of the program
        print(f"relmem: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # the second one
        return 130
    finally:
        run.folder.release()
