"""Trainings on a Ray cluster whose machines share the folders of the runs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, cast

import ray
from filelock import FileLock
from ray.exceptions import RayError

from ..agents.distributed import connect
from ..common.output import say
from ..common.processors import available_processors
from ..experiment.stop import StopRequest
from .launch import POLL_SECONDS, Launcher, Training, how_it_ended, start_process, unfinished_first


class RayTraining:
    """An actor that runs one training in a process of its own. Where the actor is lost with its machine, Ray calls it
    again on another one, and the training goes on from its last checkpoint."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, training: Training, folder: str) -> int:
        """:return: the exit code"""
        os.chdir(folder)
        self._process = start_process(training)
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def send_signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)


def on_ray(processes: int | None = None) -> Launcher:
    """Trainings on the cluster that RAY_ADDRESS names, or else on one of its own on this machine: each on one processor
    and, where its options say ``--device cuda``, on one GPU.

    :param processes: how many run at a time; None: one for each processor of the cluster
    :raises ValueError: if there is no cluster
    """
    connect(None, processes or available_processors())

    def launch(trainings: Sequence[Training], ended: Callable[[Training, int], None]) -> int:
        waiting, codes = unfinished_first(trainings), [0]
        running: dict[ray.ObjectRef, tuple[Any, Training, FileLock]] = {}

        def start() -> None:
            at_once = processes or max(1, int(ray.cluster_resources().get("CPU", 1)))
            while waiting and len(running) < at_once:
                training = waiting.pop(0)
                if lock := training.claim():
                    actor = _actor(training)
                    running[actor.run.remote(training, os.getcwd())] = actor, training, lock

        def collect() -> None:
            for task in ray.wait(list(running), timeout=POLL_SECONDS)[0]:
                actor, training, lock = running.pop(task)
                try:
                    codes.append(_code(task))
                    say(f"{training.folder}: {how_it_ended(training, codes[-1])}; {len(running) + len(waiting)} to go")
                    ended(training, codes[-1])
                finally:
                    lock.release()
                    ray.kill(actor)

        def pass_on(number: int) -> None:
            for actor, _, _ in running.values():
                actor.send_signal.remote(number)

        with StopRequest() as stop:
            start()
            told = False
            while running:
                try:
                    if stop and not told:
                        told = True
                        waiting.clear()
                        pass_on(stop.signal or signal.SIGINT)
                    collect()
                    start()
                except KeyboardInterrupt:  # the second, which ends each of them at once
                    pass_on(stop.signal or signal.SIGINT)
        return stop.exit_code or max(codes)

    return launch


def _actor(training: Training) -> Any:
    on_gpu = any(option.startswith("cuda") for option in training.options)
    options = {"num_cpus": 1, "num_gpus": int(on_gpu), "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 2}
    say(f"{training.folder}: waits for Ray, and begins (all that it says: {training.log})")
    return cast(Any, ray.remote(RayTraining)).options(**options).remote()


def _code(task: ray.ObjectRef) -> int:
    try:
        return cast(int, ray.get(task))
    except RayError as error:
        say(" ".join(str(error).split()))
        return 1
