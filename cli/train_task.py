"""``relmem train`` on a task: supervised training, from a checked config to a run folder."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch

from ..agents import Diverged
from ..experiment.pictures import draw_task_curve
from ..supervised import SupervisedTrainer
from ..tasks import make_task
from .build import require_device
from .files import replacing
from .interrupt import StopRequest
from .options import Invocation
from .progress import Progress
from .provenance import processor
from .resume import require_same_run
from .run_folder import CheckpointSaver, RunFolder, make_default_path, save_atomically, saved_on_failure
from .task_config import TaskTrainConfig
from .tensorboard_log import tensorboard_logger

SHOWN_SECONDS = 1.0  # between two looks at the loss, which on a GPU has to be waited for
LOGGED_SECONDS = 10.0  # between two points of its curve


class TaskRun(NamedTuple):
    """A training that is ready to start."""

    trainer: SupervisedTrainer
    config: TaskTrainConfig
    folder: RunFolder
    invocation: Invocation
    argv: Sequence[str]


def prepare(config: TaskTrainConfig, invocation: Invocation, argv: Sequence[str]) -> TaskRun:
    """Check everything that can be checked before training; only then make the run folder.

    :raises ValueError: if the config asks for something impossible
    """
    if invocation.resume:
        folder = RunFolder(invocation.resume, ".pt")
        folder.hold()
        require_same_run(folder, config)
        trainer = make_trainer(config)
        trainer.restore(folder.newest_checkpoint())
    else:
        if invocation.run_dir:
            RunFolder(invocation.run_dir).require_free()
        trainer = make_trainer(config)
        folder = RunFolder(invocation.run_dir or make_default_path(invocation.name), ".pt")
        folder.create(config, argv)
    return TaskRun(trainer, config, folder, invocation, argv)


def make_trainer(config: TaskTrainConfig) -> SupervisedTrainer:
    """A fresh trainer with its task.

    :raises ValueError: if an option is out of range
    """
    require_device(config.device)
    return SupervisedTrainer(
        make_task(config.task["name"], **config.task_kwargs),
        core=config.core["name"],
        core_kwargs=config.core_kwargs,
        **vars(config.head),
        **config.training.arguments(),
        precision=config.precision,
        seed=config.seed,
        device=config.device,
    )


def execute(run: TaskRun) -> int:
    """Train, save, test.

    :return: exit code: 0, or 128 plus the number of the signal that ended the run early
    """
    trainer, config, folder = run.trainer, run.config, run.folder
    if run.invocation.resume:
        outcome = trainer.outcome(config.total_updates, config.max_minutes)
        if outcome is not None and is_tested(folder):
            print(
                f"The run in {folder.path} is over: {outcome} after {trainer.updates:,} of {config.total_updates:,} "
                "updates."
            )
            return 0
        folder.log_resumption(config, run.argv)
    print(f"Run folder:  {folder.path}\nTensorBoard: {folder.tensorboard_command()}", flush=True)
    with StopRequest() as stop:
        watch = Watch(trainer, config, folder, stop)
        try:
            with saved_on_failure(trainer, trainer.model, folder):
                outcome = trainer.learn(config.total_updates, config.max_minutes, watch)
        finally:
            watch.close()
        with suppress(Diverged):  # the weights were never finite: there is nothing to save
            save_atomically(trainer, folder.model)  # before anything that may fail or take time
        finish(run, outcome, stop)
    return 128 + stop.signal if stop.signal else 0


def is_tested(folder: RunFolder) -> bool:
    """Whether the results of a run are there and whole."""
    try:
        return json.loads(folder.results.read_text(encoding="utf-8"))["test"] is not None
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return False


class Watch:
    """What runs beside the training: curves, progress, checkpoints, and the user's wish to stop."""

    def __init__(
        self, trainer: SupervisedTrainer, config: TaskTrainConfig, folder: RunFolder, stop: StopRequest
    ) -> None:
        self.folder, self.stop = folder, stop
        self.metric = f"valid_{trainer.task.metric}"
        self.logger = tensorboard_logger(folder.path, trainer.updates)
        # Runs of their own for TensorBoard, which draws them into the same picture.
        self.trivial = {
            tensorboard_logger(folder.path / "trivial" / name, trainer.updates): level
            for name, level in trainer.task.trivial("valid").items()
        }
        limit = None if config.max_minutes is None else 60 * config.max_minutes - trainer.seconds
        self.progress = Progress(config.total_updates, "updates", limit=limit)
        self.progress.start(trainer.updates, self._status(trainer))
        self.began, self.first = trainer.seconds, trainer.updates
        self.logged = len(trainer.history)
        self.shown = self.drawn = time.monotonic()
        self.save = CheckpointSaver(folder)

    def __call__(self, trainer: SupervisedTrainer) -> bool:
        """After every update; False ends the training."""
        now = time.monotonic()
        if len(trainer.history) > self.logged:
            self.logged = len(trainer.history)
            self._log(trainer)
            self.drawn, self.shown = now, -math.inf
        elif now - self.drawn >= LOGGED_SECONDS:  # an evaluation may be many minutes away
            self.logger.record("train/loss", trainer.train_loss)
            self.logger.dump(trainer.updates)
            self.drawn = now
        if now - self.shown >= SHOWN_SECONDS:
            self.progress.update(trainer.updates, self._status(trainer))
            self.shown = now
        self.save(trainer, trainer.updates)
        return not self.stop

    def _log(self, trainer: SupervisedTrainer) -> None:
        entry = trainer.history[-1]
        for key, value in entry.items():
            if key.startswith("valid_"):
                self.logger.record(key.replace("_", "/", 1), value)
        self.logger.record("train/loss", entry["train_loss"])
        self.logger.record("train/learning_rate", entry["learning_rate"])
        speed = (trainer.updates - self.first) / max(trainer.seconds - self.began, 1e-9)
        self.logger.record("time/updates_per_second", speed)
        self.logger.dump(trainer.updates)
        for logger, level in self.trivial.items():
            logger.record(self.metric.replace("_", "/", 1), level)
            logger.dump(trainer.updates)

    def _status(self, trainer: SupervisedTrainer) -> str:
        latest = f"{trainer.history[-1][self.metric]:.4g}" if trainer.history else "-"
        return f"loss {trainer.train_loss:.4g}, {trainer.task.metric} {latest}"

    def close(self) -> None:
        """Leave terminal and files in order, however the training ended."""
        self.progress.close()
        for logger in (self.logger, *self.trivial):
            logger.close()


def finish(run: TaskRun, outcome: str | None, stop: StopRequest) -> None:
    """Test the best weights unless the run is to go on later; write the results and draw the curve."""
    trainer, config, folder = run.trainer, run.config, run.folder
    test = None
    if outcome is not None:
        with stop.immediate():  # or the run has no test score yet, and makes up for it when it is resumed
            test = trainer.test(config.training.eval_size if run.invocation.smoke else None)
    results = describe(trainer, config, outcome, test) | {
        "commands": folder.command.read_text().splitlines(),
        "versions": folder.versions.read_text().splitlines(),
    }
    with replacing(folder.results) as file:
        file.write((json.dumps(_finite(results), indent=1, allow_nan=False) + "\n").encode())
    metric = trainer.task.metric
    draw_task_curve(
        folder.curve,
        trainer.history,
        metric,
        f"{folder.path.name}: {config.core['name']}, {config.task['name']}, seed {config.seed}",
        trainer.task.trivial("valid"),
        test["test"][metric] if test else None,
    )
    print(f"{(outcome or 'stopped').capitalize()} after {trainer.updates:,} updates.", end=" ")
    print("".join(f"{metric} on {name}: {scores[metric]:.4g}. " for name, scores in (test or {}).items()))
    print(f"Saved {folder.model}, {folder.results} and {folder.curve}.")


def describe(
    trainer: SupervisedTrainer, config: TaskTrainConfig, outcome: str | None, test: dict[str, dict[str, float]] | None
) -> dict[str, Any]:
    """What a run showed, for ``results.json``."""
    epoch = trainer.updates_per_epoch

    def moment(entry: dict[str, float] | None) -> dict[str, float] | None:
        if entry is None:
            return None
        return {
            "updates": entry["update"],
            "minutes": round(entry["seconds"] / 60, 2),
            **({"epochs": round(entry["update"] / epoch, 2)} if epoch else {}),
            **{key: value for key, value in entry.items() if key.startswith("valid_")},
        }

    task, cuda = trainer.task, trainer.device.type == "cuda"
    return {
        "task": config.task["name"],
        "core": config.core["name"],
        "seed": config.seed,
        "outcome": outcome or "stopped",
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "trivial": {name: task.trivial(name) for name in task.split_sizes if name != "train"},
        "test": test,
        "best": moment(trainer.best_evaluation),
        "converged": moment(trainer.converged_at),
        "updates": trainer.updates,
        **({"epochs": round(trainer.updates / epoch, 2)} if epoch else {}),
        "samples": trainer.updates * trainer.batch_size,
        "minutes": round(trainer.seconds / 60, 2),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "bf16_allowed": trainer.model.autocast_dtype is not None,
        "device": torch.cuda.get_device_name(trainer.device) if cuda else processor(),
        "threads": torch.get_num_threads(),
        "config": config.as_dict(),
        "history": trainer.history,
    }


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not know, as a diverged training has them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
