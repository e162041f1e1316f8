"""Settings that are tried one after the other, by Optuna: its study is a file, which several processes may share."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna import TrialPruned
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.pruners import MedianPruner
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import MaxTrialsCallback, Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from ..common.output import say, warn
from .folder import has_checkpoint
from .job import Job
from .run import Run
from .search_space import Space

HEARTBEAT_SECONDS, GRACE_SECONDS = 30, 120  # a trial without heartbeat for so long was killed, and is tried again
STARTUP_TRIALS = 4  # that are not pruned
OPTIONS, SETTINGS, FOLDER = "options", "settings", "folder"  # attributes: of the study, and of trials
OVER = (TrialState.COMPLETE, TrialState.PRUNED)


def open_study(folder: Path, name: str, lower_is_better: bool, options: Sequence[str], warmup: int) -> Study:
    """Open the study in a folder, or begin it.

    :param options: what all trials have in common, and what is tried
    :param warmup: steps of a training before which it is not pruned
    :raises ValueError: if the study that is there has other options, or cannot be opened
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # this module says what happens
    file = folder / "study.db"
    url = URL.create("sqlite", database=str(file.resolve())).render_as_string()  # whatever signs the path has
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage = RDBStorage(
                url,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=_again,
            )
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=StudyDirection.MINIMIZE if lower_is_better else StudyDirection.MAXIMIZE,
            pruner=MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=warmup),
            load_if_exists=True,
        )
    except (SQLAlchemyError, StorageInternalError) as error:
        raise ValueError(f"cannot open the study '{file}': {str(error).splitlines()[0]}") from error
    if study.user_attrs.setdefault(OPTIONS, list(options)) != list(options):
        raise ValueError(f"the study in '{folder}' is of other options ({' '.join(study.user_attrs[OPTIONS])})")
    study.set_user_attr(OPTIONS, list(options))
    return study


class Interrupted(Exception):
    """A trial that a signal ended: it is tried again."""


class Tuning(NamedTuple):
    """Trials of settings, each a run in a folder of its own.

    :param study: that keeps their results
    :param folder: of all of them
    :param space: what is tried
    :param options: what all trials have in common, as on the command line of a training
    :param make_job: makes a training of such options
    """

    study: Study
    folder: Path
    space: Space
    options: Sequence[str]
    make_job: Callable[[Sequence[str]], Job]

    @property
    def over(self) -> int:
        """How many trials are over."""
        return len(self.study.get_trials(deepcopy=False, states=OVER))

    def best(self) -> FrozenTrial | None:
        """The best of the trials that came to their end; see ``settings`` and ``folder_of``."""
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return self.study.best_trial if complete else None

    def settings(self, trial: FrozenTrial) -> list[str]:
        """All options of a trial, as on the command line of a training."""
        return [*self.options, *trial.user_attrs[SETTINGS]]

    def folder_of(self, trial: Trial | FrozenTrial) -> Path:
        """Where a trial is run: where it was broken off, or in a folder of its own."""
        return self.folder / trial.user_attrs.get(FOLDER, f"trial_{trial.number:04d}")

    def run(self, trials: int) -> int:
        """Try settings until the study has so many trials, those of other processes included.

        :return: exit code: 0, or 128 plus the number of the signal that ended it early
        """
        if self.over >= trials:
            return 0
        # Those of others that run count too, so that no trial is one too many.
        limit = MaxTrialsCallback(trials, states=(*OVER, TrialState.RUNNING))
        try:
            self.study.optimize(self._try, callbacks=[limit])
        except Interrupted as end:
            return int(end.args[0])
        return 0

    def _try(self, trial: Trial) -> float:
        """The score of one trial."""
        words = [word for name, values in self.space.items() for word in (f"--{name}", values.draw(trial, name))]
        path, options = self.folder_of(trial), [*self.options, *words]
        trial.set_user_attr(FOLDER, path.name)
        trial.set_user_attr(SETTINGS, words)
        say(f"\nTrial {trial.number}: {' '.join(words)}")
        try:
            job = self.make_job(options)
            goes_on = path.exists() and has_checkpoint(path)
            if path.exists() and not goes_on:
                shutil.rmtree(path)
            run = Run(job, options, path, path if goes_on else None, job.config if goes_on else None)
        except ValueError as error:
            warn(f"trial {trial.number} is impossible: {error}")
            raise TrialPruned from error

        def evaluated(step: int, score: float) -> None:
            trial.report(score, step)
            if trial.should_prune():
                run.stop.ask()

        job.evaluated = evaluated
        code = run.execute()
        if code >= 128:
            _again(self.study, self.study.get_trials(deepcopy=False)[trial.number])
            raise Interrupted(code)
        score = job.score(run.folder.read_results())
        if code or run.stop or score is None:
            say(f"Trial {trial.number} is pruned.")
            raise TrialPruned
        say(f"Trial {trial.number}: {score:.4g}.")
        return score


def _again(study: Study, trial: FrozenTrial) -> None:
    """Put a trial that was broken off in the queue, to go on in its folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)(study, trial)
