"""``relmem train``: train an agent, or a model on a task, in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..agents.processes import place_of_process
from ..common.output import say
from ..experiment.agent import AgentJob
from ..experiment.follow import Follower
from ..experiment.run import Run
from .options import help_text, parse


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check everything that can be checked before training; only then make the run folder.

    :param argv: the command line after ``relmem train``
    :return: what trains
    :raises ValueError: if the command line asks for something impossible
    """
    if "--help" in argv or "-h" in argv:
        say(help_text([word for word in argv if word not in ("--help", "-h")]))
        return lambda: 0
    asked = parse(argv)
    saved = parse(["--resume", str(asked.resume)]).config if asked.resume else None
    job = asked.job(asked.config, asked.smoke, asked.trusted)
    place = place_of_process()
    if place.size > 1 and not isinstance(job, AgentJob):
        raise ValueError("the processes of torchrun train agents: a task is trained by one process")
    if place.rank:
        return Follower(job).execute
    return Run(job, argv, asked.run_dir, asked.resume, saved).execute
