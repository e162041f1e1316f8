"""The command line: ``relmem train``, and ``python train.py`` in a clone of the repository."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..common.checks import require_choice
from ..common.output import say, stage, warn

USAGE = """usage: relmem COMMAND [options]

commands:
  train    train an agent, or a model on a task; relmem train --help lists the options"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    :param argv: command and its arguments; None: those of this process
    :return: exit code: 0; 1 for a training whose numbers are not finite any more, or a model that could not be saved;
        2 for a mistake in the arguments; 128 plus its number for a signal
    """
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        say(USAGE)
        return 0
    if os.getcwd() not in sys.path:  # where `module:name` of the user's own is looked for, after all else
        sys.path.append(os.getcwd())
    wait_without_spinning()
    try:
        require_choice("command", command, ["train"])
        with stage("loading PyTorch"):  # which takes seconds, the first time
            from .train import prepare
        execute = prepare(rest)
    except ValueError as error:
        warn(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return execute()


def wait_without_spinning() -> None:
    """Let threads that wait for each other sleep: on a machine with other work, spinning ones take many times as long.
    PyTorch reads this when it is imported."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
