"""One run: an agent in environments, or a model on a task, from its options to its results."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from ..agents import Diverged
from ..common.output import say, stage, warn
from ..common.values import write
from .config import Config
from .folder import RunFolder, make_default_path
from .job import Job
from .stop import StopRequest
from .tracking import require_tracking, tracked


class Run:
    """A training in a folder of its own. Everything is checked and built; only then is the folder made.

    :param job: what is trained
    :param argv: the command line after ``relmem train``
    :param run_dir: folder of the run; None: one in ``runs``
    :param resume: folder of a run to continue
    :param saved: the options of that run
    :raises ValueError: if anything is impossible
    """

    def __init__(
        self, job: Job, argv: Sequence[str], run_dir: Path | None, resume: Path | None, saved: Config | None
    ) -> None:
        self.job, self.argv, self.resumed, self.stop = job, argv, saved is not None, StopRequest()
        require_device(job.config["device"])
        if job.config["threads"] is not None:
            torch.set_num_threads(job.config["threads"])
        checkpoint, folder = None, RunFolder(resume or run_dir or Path(), job.ending, job.config["keep"])
        if saved:
            folder.hold()
            require_same_run(job, saved, folder)
            checkpoint = folder.newest_checkpoint()
        elif run_dir:
            folder.require_free()
        if job.config["track"]:
            require_tracking()
        try:
            with stage(f"preparing {job.name}"), _one_sentence():
                job.prepare(checkpoint)
            if not saved:
                folder = RunFolder(run_dir or make_default_path(job.name), job.ending, job.config["keep"])
                folder.create(write(job.config.as_dict()), argv)
        except BaseException:
            job.close()
            raise
        self.folder = folder

    def execute(self) -> int:
        """Train, save, evaluate.

        :return: exit code: 0; 1 where the model could not be saved in the run folder, or is of no use; 128 plus the
            number of the signal that ended the run early
        """
        try:
            with self.stop, tracked(self.folder, self.job.config) if self.job.config["track"] else nullcontext():
                return self._execute()
        except FloatingPointError as error:  # of the loss or of an environment: no fault of the program
            warn(str(error))
            if not isinstance(error, Diverged):
                warn(self._how_to_go_on())
            return 1
        except KeyboardInterrupt:
            return self.stop.exit_code or 130
        except SystemExit as error:
            raise RuntimeError(
                "the environment, or something else that the training called, ended the program"
            ) from error
        finally:
            self.job.close()
            self.folder.release()

    def _execute(self) -> int:
        job, folder, config = self.job, self.folder, self.job.config
        if self.resumed:
            if job.is_over(folder.read_results()):
                say(
                    f"The run in {folder.path} is over: {job.outcome()} after {job.done:,} of {config[job.total]:,} "
                    f"{job.unit}. A larger --{job.total} continues it."
                )
                return 0
            with folder.attempt("the record of this command"):
                folder.record(write(config.as_dict()), self.argv)
        facts, left = job.facts(), max(0, config[job.total] - job.done)  # a rollout may reach beyond the end
        plan = f"Training {job.name} for {left:,} {job.unit}" if left else f"Testing {job.name}, which is trained"
        say(
            f"Run folder:  {folder.path}\nTensorBoard: {folder.tensorboard_command()}\n"
            f"{plan}: {facts['parameters']:,} parameters, {job.plan()}; on {facts['device']} ({job.learner.device}), "
            f"{facts['threads']} thread(s)"
        )
        self._train()
        self.stop.at_once = False
        with self.stop.held():
            model = folder.save(job.learner)  # before anything that may fail or take time
        if not folder.config.exists():
            warn(f"{folder.path} was removed while the run trained: what it held before is gone")
            with folder.attempt("the record of this command"):
                folder.record(write(config.as_dict()), self.argv)
        job.finish(folder, self.stop)
        files = [file for file in (model, folder.results, folder.curve) if file and file.exists()]
        say(f"Saved {', '.join(map(str, files))}.")
        for what, error in folder.missing.items():
            if error:
                warn(f"what this run lacks: {what} ({error})")
        return self.stop.exit_code or int(model != folder.model)

    def _train(self) -> None:
        """Save what was learned even if the training fails, unless it has diverged: the last checkpoint is then what a
        run goes on from."""
        job, folder = self.job, self.folder
        try:
            job.execute(folder, self.stop)
        except KeyboardInterrupt:
            self.stop.note()
        except Diverged:
            folder.write_results(job.facts() | job.describe() | {job.tested: None, "outcome": "diverged"})
            raise
        except (Exception, SystemExit) as error:
            if all(parameter.isfinite().all() for parameter in job.network.parameters()):
                folder.save(job.learner)
            if not isinstance(error, FloatingPointError):  # of which `execute` speaks
                warn(self._how_to_go_on())
            raise

    def _how_to_go_on(self) -> str:
        return f"The training failed. To go on from where it was: --resume {self.folder.path}"


@contextmanager
def _one_sentence() -> Iterator[None]:
    """What goes wrong before a training begins is due to what was asked for, such as an environment that cannot be
    made: no traceback, but the place. ``python -X dev`` shows it all."""
    try:
        yield
    except ValueError:
        raise
    except (Exception, SystemExit) as error:
        if sys.flags.dev_mode:
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"this cannot be trained: {type(error).__name__}: {error} ({place.filename}, line {place.lineno})"
        ) from error


def require_same_run(job: Job, saved: Config, folder: RunFolder) -> None:
    """Only the length of a run and the hardware that it runs on may change when it is continued.

    :raises ValueError: naming the first option that differs from the run's own
    """
    before, asked = saved.flat(), job.config.flat()
    for key in (*asked, *before):
        if key not in job.may_change and before.get(key) != asked.get(key):
            raise ValueError(
                f"cannot continue {folder.path} with {key} {asked.get(key)}: that run has {key} {before.get(key)} "
                f"(only {', '.join(job.may_change)} may change)"
            )
    if asked[job.total] != before[job.total]:
        for key, value in asked.items():
            if str(value).startswith("lin_"):
                warn(
                    f"{key} falls to zero over all {asked[job.total]:,} {job.unit} now: it goes on from another value "
                    f"than it had where the {before[job.total]:,} ended"
                )


def require_device(name: str) -> None:
    """Refuse a device that there is not.

    :raises ValueError: if it is unknown, or torch finds none
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError(f"unknown device '{name}': choose auto, cpu, cuda or cuda:N")
    found = torch.cuda.device_count()
    if name.startswith("cuda") and int(name.removeprefix("cuda").removeprefix(":") or 0) >= found:
        raise ValueError(f"device '{name}' is not available here: torch finds {found} with CUDA")
