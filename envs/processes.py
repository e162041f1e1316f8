"""Environments in processes of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable
from typing import Any

import gymnasium
from stable_baselines3.common.vec_env import SubprocVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from ..common.exact import NotExact
from ..common.generators import generators, set_generators
from .state import load_chain, save_chain

END_SECONDS = 0.1  # between the last word of a process and its end
GRACE_SECONDS = 5.0  # for a process that is to end


class ProcessVecEnv(SubprocVecEnv):
    """SB3's ``SubprocVecEnv``, whose processes leave Ctrl-C to the one that started them, and which says which of them
    failed and can be closed after that.

    :param env_fns: what each process makes its environment with
    """

    def __init__(self, env_fns: list[Callable[[], gymnasium.Env]], start_method: str | None = None) -> None:
        # Loaded once, where the processes are forked from, and not in each of them, which takes seconds.
        multiprocessing.set_forkserver_preload(["__main__", "relmem.envs"])
        super().__init__([Deaf(make_env) for make_env in env_fns], start_method)

    def step_wait(self) -> VecEnvStepReturn:
        try:
            return super().step_wait()
        except (EOFError, ConnectionError) as error:
            for process in self.processes:
                process.join(END_SECONDS)
            failed = next((i for i, process in enumerate(self.processes) if not process.is_alive()), None)
            which = "an environment" if failed is None else f"environment {failed}"
            raise RuntimeError(f"{which} failed in its process, whose output above may say why") from error

    def save_state(self) -> list[Any]:
        """Where the environments are, and the generators of their processes.

        :raises NotExact: if one of them cannot be taken down
        """
        found = self.env_method("where")
        for state in found:
            if isinstance(state, NotExact):
                raise state
        return found

    def load_state(self, state: list[Any]) -> bool:
        """Bring the environments to where others were.

        :raises ValueError: if they are not made alike
        """
        if len(state) != self.num_envs:
            raise ValueError(f"the state is of {len(state)} environments, and these are {self.num_envs}")
        for number, place in enumerate(state):
            self.env_method("go_to", place, indices=number)
        return True

    def close(self) -> None:
        """End all processes, whatever they are doing: SB3 would wait for what a step has to say, which may have been
        read already, or come from one that is gone."""
        if self.closed:
            return
        self.closed = True
        for remote in self.remotes:
            with contextlib.suppress(OSError):
                remote.send(("close", None))
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        for process in self.processes:
            process.terminate()
            process.join(END_SECONDS)


class Deaf:
    """Makes an environment, in a process that Ctrl-C does not end."""

    def __init__(self, make_env: Callable[[], gymnasium.Env]) -> None:
        self.make_env = make_env

    def __call__(self) -> Any:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return Reachable(self.make_env())


class Reachable(gymnasium.Wrapper):
    """An environment that another process can ask where it is."""

    def where(self) -> dict[str, Any] | NotExact:
        """What ``go_to`` wants; or why that cannot be said, which this process must not die of."""
        try:
            return {"layers": save_chain(self.env), "generators": generators()}
        except NotExact as error:
            return error

    def go_to(self, place: dict[str, Any]) -> None:
        """Be where another one was."""
        load_chain(self.env, place["layers"])
        set_generators(place["generators"])
