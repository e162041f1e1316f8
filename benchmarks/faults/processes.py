"""Faults around running trainings: kills, signals, full disks, folders that vanish, readers that go away.

Trainings are forks of this process, which has loaded everything already, so that hundreds of them take minutes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

from benchmarks.faults.table import Tally
from relmem.agents import Algorithm, MemoryPPO, load
from relmem.cli import main
from relmem.experiment import agent
from relmem.experiment import folder as run_folder
from relmem.experiment.folder import RunFolder

INTERVAL = 0.1  # seconds between checkpoints here
ENDLESS = 10**9
FLAGS = ["train", "--env.id", "relmem/MaskedCartPole-v0", "--core.name", "gru", "--core.hidden_size", "8"]
PPO = [*FLAGS, "--env.n_envs", "2", "--algo.n_steps", "32", "--algo.n_epochs", "2", "--eval.episodes", "1"]
A3C = [*FLAGS, "--algo.name", "a3c", "--algo.workers", "2", "--algo.envs_per_worker", "2", "--eval.episodes", "1"]
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
PHASES = ("start", "rollout", "update", "save", "evaluation")


class Training:
    """A training in a fork of this process."""

    def __init__(self, folder: Path, flags: list[str], before: Callable[[], object] | None = None) -> None:
        self.log = folder.with_name(f"{folder.name}.log")
        self.pid = os.fork()
        if self.pid:
            return
        code = 70
        try:  # nothing of the parent's runs on in here
            log = os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            torch.set_num_threads(1)
            run_folder.CHECKPOINT_SECONDS = run_folder.FIRST_CHECKPOINT_SECONDS = INTERVAL
            if before is not None:
                before()
            code = main(flags)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):  # the latter: it is closed
                sys.stdout.flush()
            os._exit(code)

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code, negative for a signal; it is killed where it takes too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        self.send(signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return -999

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def said(self) -> str:
        """The last line of its output."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1] if lines else ""

    def failed(self) -> bool:
        """Whether it ended with a traceback."""
        return self.log.exists() and "Traceback" in self.log.read_text(errors="replace")


def new(folder: Path, flags: list[str], steps: int = ENDLESS, before: Callable[[], object] | None = None) -> Training:
    return Training(folder, [*flags, "--run_dir", str(folder), "--total_timesteps", str(steps)], before)


def seconds_lost(folder: Path, now: float) -> float:
    """Since the newest checkpoint, or since the run began."""
    files = [*folder.glob("checkpoints/step_*.zip"), *folder.glob("config.yaml")]
    return max(0.0, now - max((file.stat().st_mtime for file in files), default=now))


def check(folder: Path, tally: Tally, unbroken: dict[int, str], resume: bool) -> None:
    """Count whether what a run left behind is what an unbroken one had after as many steps and, where asked for,
    whether it goes on to what that one had later.

    :param unbroken: digest of the weights by steps, as far as it went
    """
    try:
        checkpoint = RunFolder(folder).newest_checkpoint()
    except ValueError:  # killed before the first one: there is nothing but what a new run begins with
        half = [path for path in folder.glob("checkpoints/step_*.zip")]
        tally.count(not half, f"half a checkpoint: {half}" if half else "no checkpoint yet", corrupted=bool(half))
        return
    try:
        model = load(checkpoint)
        said = ""
        if resume:
            steps = model.num_timesteps + 128
            training = Training(folder, ["train", "--resume", str(folder), "--total_timesteps", str(steps)])
            code = training.wait()
            said = f"resume ended with {code}: {training.said()}"
            if code:
                tally.count(False, said)
                return
            model = load(folder)
    except ValueError as error:
        tally.count(False, str(error), corrupted=True)
        return
    same = unbroken.get(model.num_timesteps) in (None, digest(model))
    tally.count(same, said if same else f"other weights after {model.num_timesteps} steps", corrupted=not same)
    tally.compared += same and model.num_timesteps in unbroken


def digest(model: Algorithm) -> str:
    """Of all weights, to the bit."""
    return hashlib.sha256(torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy()).hexdigest()


def unbroken_training(folder: Path, steps: int) -> dict[int, str]:
    """Digests of the weights of a training that nothing stops, by its steps."""
    noted = folder / "digests"

    def note() -> None:
        train = MemoryPPO.train

        def noting(self: MemoryPPO) -> None:
            train(self)
            with noted.open("a") as file:
                file.write(f"{self.num_timesteps} {digest(self)}\n")

        MemoryPPO.train = noting  # type: ignore[method-assign]

    new(folder / "unbroken", PPO, steps, before=note).wait(300)
    return {int(count): weights for count, weights in map(str.split, noted.read_text().splitlines())}


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def kills(folder: Path, rng: np.random.Generator, quick: bool) -> Tally:
    """SIGKILL at any time: while starting, playing, learning, and in the middle of saves."""
    tally, lost = Tally("kills"), 0.0
    unbroken = unbroken_training(folder, 2_000 if quick else 20_000)
    for number in range(4 if quick else 200):
        run = folder / str(number)
        in_save = number % 3 == 0
        training = new(run, PPO, before=_slow_saves if in_save else None)
        if in_save:
            wait_for(lambda run=run: list(run.glob("checkpoints/.step_*")), 30)
        else:
            time.sleep(rng.uniform(0.0, 2.0))
        training.send(signal.SIGKILL)
        lost = max(lost, seconds_lost(run, time.time()))
        training.wait()
        check(run, tally, unbroken, resume=number % 4 == 1)
        shutil.rmtree(run, ignore_errors=True)
    tally.lost = f"{lost:.1f} s; a checkpoint was due every {INTERVAL} s"
    return tally


def _slow_saves() -> None:
    """Files are written in small pieces, so that kills hit them."""
    write = run_folder.replacing

    @contextmanager
    def slow(path: Path):  # type: ignore[no-untyped-def]
        with write(path) as file:

            class Slow:
                def write(self, content: bytes) -> None:
                    for begin in range(0, len(content), 4096):
                        file.write(content[begin : begin + 4096])
                        file.flush()
                        time.sleep(0.005)

            yield Slow() if "step_" in path.name else file

    run_folder.replacing = slow


def workers(folder: Path, rng: np.random.Generator, quick: bool) -> Tally:
    """SIGKILL to workers of A3C: the training goes on, its parameters stay finite."""
    tally = Tally("workers")
    for number in range(1 if quick else 5):
        run = folder / str(number)
        training = new(run, A3C)
        code: int | None = None
        wait_for(lambda run=run: list(run.glob("checkpoints/step_*.zip")), 120)
        kills = 1 if quick else 6
        for _ in range(kills):
            time.sleep(rng.uniform(0.2, 3.0))
            if not (found := _workers_of(training.pid)):
                break
            with suppress(ProcessLookupError):
                os.kill(int(rng.choice(found)), signal.SIGKILL)
        time.sleep(2.0)
        training.send(signal.SIGTERM)
        code = training.wait(180)
        whole = code == 143 and (run / "model.zip").exists()
        for _ in range(kills):
            tally.count(whole, f"ended with {code}: {training.said()}")
        shutil.rmtree(run, ignore_errors=True)
    tally.lost = "a segment of the worker"
    return tally


def _workers_of(pid: int) -> list[int]:
    """Processes of A3C's workers that a process has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def signals(folder: Path, rng: np.random.Generator, quick: bool) -> Tally:
    """Each signal that asks to stop, in each phase of a run, once and twice."""
    tally = Tally("signals")
    for name, code in SIGNALS.items():
        for phase in PHASES[1:3] if quick else PHASES:
            for again in (False,) if quick else (False, True):
                run = folder / f"{name}_{phase}_{again}"
                number = getattr(signal, name)
                training = new(run, PPO, 512, before=lambda p=phase, n=number, a=again: _signal_at(p, n, a))
                ended = training.wait()
                expected = {code, *((130, 128 + number, -number) if again or phase == "start" else ())}
                said = f"{name} in {phase}{', twice' if again else ''}: {ended}, {training.said()}"
                if phase == "start" or (again and not (run / "model.zip").exists()):
                    tally.count(ended in expected and not training.failed(), said)
                else:
                    try:
                        whole = load(run) is not None
                    except ValueError as error:
                        whole, said = False, str(error)
                    tally.count(ended in expected and whole and not training.failed(), said)
                shutil.rmtree(run, ignore_errors=True)
    tally.lost = "a rollout"
    return tally


def _signal_at(phase: str, number: int, again: bool) -> None:
    """Raise a signal once in a phase of the run that begins now."""
    place = {
        "start": (agent.AgentJob, "execute"),
        "rollout": (agent.Watch, "_on_step"),
        "update": (torch.optim.Adam, "step"),
        "save": (run_folder, "save"),
        "evaluation": (agent, "evaluate"),
    }[phase]
    function, calls = getattr(*place), []

    def interrupted(*args, **kwargs):  # type: ignore[no-untyped-def]
        calls.append(None)
        if len(calls) == (1 if phase in ("start", "save", "evaluation") else 9):
            for _ in range(1 + again):
                signal.raise_signal(number)
        return function(*args, **kwargs)

    setattr(*place, interrupted)


def stdout(folder: Path, rng: np.random.Generator, quick: bool) -> Tally:
    """Output into closed pipes, closed files and a full device."""
    tally = Tally("stdout")
    kinds = ("pipe", "full", "closed")
    for number in range(len(kinds) if quick else 12):
        kind, run = kinds[number % 3], folder / str(number)
        training = new(run, PPO, 256, before=lambda kind=kind: _broken_output(kind))
        code = training.wait()
        tally.count(code == 0 and (run / "model.zip").exists(), f"{kind}: ended with {code}")
        shutil.rmtree(run, ignore_errors=True)
    return tally


def _broken_output(kind: str) -> None:
    if kind == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full" if kind == "full" else os.devnull, os.O_WRONLY)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    if kind == "closed":
        sys.stdout.close()


def folders(folder: Path, rng: np.random.Generator, quick: bool) -> Tally:
    """The run folder, or parts of it, removed or made read-only (which does not stop root) while a run trains."""
    tally = Tally("folders")
    for number in range(2 if quick else 20):
        run = folder / str(number)
        training = new(run, PPO, 4096)
        wait_for(lambda run=run: list(run.glob("checkpoints/step_*.zip")), 60)
        time.sleep(rng.uniform(0.0, 0.3))
        target = run if number % 4 < 2 else run / "checkpoints"
        if number % 2:
            with suppress(OSError):
                target.chmod(stat.S_IRUSR | stat.S_IXUSR)
        else:
            shutil.rmtree(target, ignore_errors=True)
        code = training.wait()
        with suppress(OSError):
            target.chmod(0o755)
        tally.count(code in (0, 1) and not training.failed(), f"ended with {code}: {training.said()}")
        shutil.rmtree(run, ignore_errors=True)
    tally.lost = "what was removed"
    return tally


def disk(folder: Path, rng: np.random.Generator, quick: bool) -> Tally:
    """A disk that is full from some moment on: a small tmpfs, where root may mount one."""
    tally = Tally("disk")
    place = folder / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        tally.worst = f"left out: {mounted.stderr.decode().strip()}"
        return tally
    try:
        for _ in range(1 if quick else 12):
            run = place / "run"
            training = new(run, PPO, 2048)
            wait_for(lambda run=run: list(run.glob("checkpoints/step_*.zip")), 60)
            time.sleep(rng.uniform(0.0, 0.3))
            with suppress(OSError), (place / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(4096))
                    filler.flush()
            code = training.wait()
            (place / "filler").unlink()
            said = f"ended with {code}: {training.said()}"
            tally.count(code in (0, 1) and not training.failed() and RunFolder(run).newest_checkpoint().exists(), said)
            for left in place.iterdir():
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)
    tally.lost = "what was played since the disk was full, if the model went nowhere"
    return tally
