"""What the other processes of a training do while the first keeps its run."""

from __future__ import annotations

import signal

import torch

from .agent import AgentJob
from .job import Job
from .run import require_device
from .stop import SIGNALS


class Follower:
    """A process that trains along, and writes nothing. When that is over, is up to the first one.

    :param job: the same that the first process has
    :raises ValueError: if it is not the training of an agent, or anything is impossible
    """

    def __init__(self, job: Job) -> None:
        require_device(job.config["device"])
        if job.config["threads"] is not None:
            torch.set_num_threads(job.config["threads"])
        assert isinstance(job, AgentJob)
        self.job = job
        job.prepare(None)  # what a checkpoint holds comes from the first process

    def execute(self) -> int:
        """Train along.

        :return: exit code: 0, or 1 where numbers are not finite, of which the first process speaks
        """
        for number in SIGNALS:  # torchrun passes them on to all
            signal.signal(number, signal.SIG_IGN)
        try:
            self.job.follow()
        except FloatingPointError:
            return 1
        return 0
