"""The command line: ``relmem COMMAND``, and ``python train.py`` in a clone of the repository."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata

from ..common.checks import require_choice
from ..common.output import say, stage, warn

COMMANDS = {  # each the module of that name, whose `prepare(argv)` checks all it can and returns what does the work
    "train": "train an agent, or a model on a task",
    "evaluate": "play episodes with a trained agent, and count what it gets",
    "enjoy": "watch a trained agent in a window",
    "record": "film a trained agent, its memory too, and draw stills of that",
    "sweep": "train every combination of options and seeds, then draw them",
    "tune": "look for good settings",
    "plot": "draw runs in one picture, with a table beside it",
    "export": "write an agent as ONNX or for torch.export, to be run without relmem",
    "cores": "list the memory cores: parameters, state, cost",
    "configs": "list the experiments that come with relmem",
    "envs": "list the environments",
    "tasks": "list the supervised tasks, and what is trivial there",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    :param argv: command and its arguments; None: those of this process
    :return: exit code: 0; 1 for a training whose numbers are not finite any more, or a model that could not be saved;
        2 for a mistake in the arguments; 128 plus its number for a signal
    """
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        say(usage())
        return 0
    if command == "--version":
        say(f"relmem {metadata.version('relmem')}")
        return 0
    with suppress(FileNotFoundError):  # of a folder that has been removed
        if os.getcwd() not in sys.path:  # where `module:name` of the user's own is looked for, after all else
            sys.path.append(os.getcwd())
    wait_without_spinning()
    try:
        require_choice("command", command, COMMANDS)
        with stage("loading PyTorch"):  # which takes seconds, the first time
            module = importlib.import_module(f".{command}", __package__)
        execute = module.prepare(rest)
    except (ValueError, OSError) as error:  # OSError: of what the system refuses, such as a name that is too long
        warn(str(error))
        return 2
    except SystemExit:  # argparse, whose help is printed
        return 0
    except KeyboardInterrupt:
        return 130
    try:
        return execute()
    except KeyboardInterrupt:  # of a command that has nothing to bring in order
        return 130


def usage() -> str:
    """What ``relmem --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {words}" for name, words in COMMANDS.items()]
    return "\n".join(
        [
            "usage: relmem COMMAND [options]",
            "       relmem --version",
            "",
            "commands:",
            *lines,
            "",
            "relmem COMMAND --help lists them",
        ]
    )


def wait_without_spinning() -> None:
    """Let threads that wait for each other sleep: on a machine with other work, spinning ones take many times as long.
    PyTorch reads this when it is imported."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
