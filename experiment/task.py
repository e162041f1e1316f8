"""The job of training a model on a task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..agents import Diverged
from ..common.options import Count, Option, Positive, options_of
from ..common.output import say, stage
from ..supervised import SequenceModel, SupervisedTrainer, memories, memory_options
from ..tasks import make_task
from ..tasks.registry import TASKS, registered_tasks
from .config import Config, Group, run_options
from .folder import RunFolder
from .job import Job, named
from .pictures import draw_task_curve
from .progress import Progress
from .room import ADAM, FLOAT, require_room, weights, without_content
from .stop import StopRequest
from .tensorboard_log import log_settings, tensorboard_logger

HEAD = ("embedding_size", "net_arch")
NO_OPTIONS = ("task", "core", "core_kwargs", "precision", "seed", "device", *HEAD)
SHOWN_SECONDS = 1.0  # between two looks at the loss, which on a GPU has to be waited for
LOGGED_SECONDS = 10.0  # between two points of its curve


class TaskJob(Job):
    """Trains a model on a task."""

    kind, subject, ending, unit, total, tested = "task", "task.name", ".pt", "updates", "total_updates", "test"
    may_change = ("total_updates", "max_minutes", "device", "precision", "threads", "keep")
    learner: SupervisedTrainer

    def cut(self, config: Config) -> Config:
        config = config.but(total_updates=2, training__batch_size=min(4, config["training.batch_size"]))
        return config.but(training__eval_every=None, training__eval_size=4)

    @staticmethod
    def groups(core: str, task: str) -> dict[str, Group]:
        """The options of such a run.

        :raises ValueError: if core or task is unknown
        """
        trainer = options_of(SupervisedTrainer)
        return {
            "": run_options(
                Option("total_updates", Count, 50_000, "gradient steps"),
                Option("max_minutes", Positive | None, None, "the training ends after these; null is never"),
            ),
            "task": named("task", task, registered_tasks(), TASKS.options(task)),
            "head": Group("the head", {name: trainer[name] for name in HEAD}),
            "core": named("core", core, memories(), memory_options(core)),
            "training": Group("the training", options_of(SupervisedTrainer, skip=NO_OPTIONS)),
        }

    @property
    def names(self) -> list[str]:
        return [self.config["task.name"], self.config["core.name"]]

    @property
    def network(self) -> SequenceModel:
        return self.learner.model

    @property
    def done(self) -> int:
        return self.learner.updates

    def prepare(self, checkpoint: Path | None) -> None:
        config, batch_size = self.config, self.config["training.batch_size"]
        task = make_task(config["task.name"], **config.group("task"))
        core, core_kwargs, head = config["core.name"], config.group("core"), config.group("head")
        sizes = task.input_size, task.output_size, task.kind
        if (model := without_content(lambda: SequenceModel(*sizes, core, core_kwargs, **head))) is not None:
            of_sample = FLOAT * (getattr(model.memory, "state_size", 0) + task.input_size)
            needs = {f"the model with core '{core}'": weights(model, ADAM)}
            require_room(needs | {f"a batch of {batch_size:,} samples": float(batch_size * of_sample)})
        common = {name: config[name] for name in ("precision", "seed", "device")}
        self.learner = SupervisedTrainer(task, core, core_kwargs, **head, **config.group("training"), **common)
        if checkpoint is not None:
            self.learner.restore(checkpoint, self.trusted)

    def plan(self) -> str:
        return f"batches of {self.learner.batch_size}"

    def outcome(self) -> str | None:
        return self.learner.outcome(self.config["total_updates"], self.config["max_minutes"])

    def execute(self, folder: RunFolder, stop: StopRequest) -> None:
        watch = Watch(self.learner, self.config, folder, stop, self.evaluated)
        try:
            outcome = self.learner.learn(self.config["total_updates"], self.config["max_minutes"], watch)
        finally:
            watch.close()
        if outcome == "diverged":
            raise Diverged(
                f"loss, gradient or weights are not finite any more after {self.done:,} updates: a smaller "
                "training.learning_rate may help"
            )

    def test(self, stop: StopRequest) -> dict[str, Any] | None:
        scores, outcome, metric = None, self.outcome(), self.learner.task.metric
        if outcome is not None:
            with stop.immediate(), stage("testing the best weights"):
                scores = self.learner.test(self.config["training.eval_size"] if self.smoke else None)
        shown = "".join(f" {metric} on {name}: {score[metric]:.4g}." for name, score in (scores or {}).items())
        say(f"{(outcome or 'stopped').capitalize()} after {self.done:,} updates.{shown}")
        return scores

    def draw(self, path: Path, title: str, tested: dict[str, Any] | None) -> None:
        history, task = self.learner.history, self.learner.task
        level = tested["test"][task.metric] if tested else None
        draw_task_curve(path, history, task.metric, title, task.trivial("valid"), level)

    @property
    def higher_is_better(self) -> bool:
        return make_task(self.config["task.name"], **self.config.group("task")).higher_is_better

    def score(self, results: dict[str, Any]) -> float | None:
        return (results.get("best") or {}).get(f"valid_{results.get('metric')}")

    def describe(self) -> dict[str, Any]:
        trainer, task = self.learner, self.learner.task

        def moment(updates: float, seconds: float) -> dict[str, float]:
            epoch = trainer.updates_per_epoch  # of a task with a fixed training set
            epochs = {"epochs": round(updates / epoch, 2)} if epoch else {}
            return {"updates": updates, "minutes": round(seconds / 60, 2), **epochs}

        def evaluation(entry: dict[str, float] | None) -> dict[str, float] | None:
            scores = {key: value for key, value in (entry or {}).items() if key.startswith("valid_")}
            return None if entry is None else moment(entry["update"], entry["seconds"]) | scores

        return {
            "task": self.config["task.name"],
            "outcome": self.outcome() or "stopped",
            "metric": task.metric,
            "higher_is_better": task.higher_is_better,
            "trivial": {name: task.trivial(name) for name in task.split_sizes if name != "train"},
            "best": evaluation(trainer.best_evaluation),
            "converged": evaluation(trainer.converged_at),
            **moment(trainer.updates, trainer.seconds),
            "samples": trainer.updates * trainer.batch_size,
            "bf16_allowed": trainer.model.autocast_dtype is not None,
            "history": trainer.history,
        }


class Watch:
    """What runs beside the training: curves, progress, checkpoints, and the user's wish to stop."""

    def __init__(
        self,
        trainer: SupervisedTrainer,
        config: Config,
        folder: RunFolder,
        stop: StopRequest,
        evaluated: Callable[[int, float], None] | None = None,
    ) -> None:
        self.folder, self.stop, self.evaluated = folder, stop, evaluated
        self.metric = f"valid_{trainer.task.metric}"
        self.logger = tensorboard_logger(folder, trainer.updates)
        if not trainer.updates:
            log_settings(self.logger, config, self.metric.replace("_", "/", 1))
        # Runs of their own for TensorBoard, which draws them into the same picture.
        self.trivial = {
            tensorboard_logger(folder, trainer.updates, f"trivial/{name}"): level
            for name, level in trainer.task.trivial("valid").items()
        }
        limit = None if config["max_minutes"] is None else 60 * config["max_minutes"] - trainer.seconds
        self.progress = Progress(config["total_updates"], "updates", limit=limit)
        self.progress.start(trainer.updates, self._status(trainer))
        self.began, self.first, self.logged = trainer.seconds, trainer.updates, len(trainer.history)
        self.shown = self.drawn = time.monotonic()

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
            self.progress.update(trainer.updates, status=self._status(trainer))
            self.shown = now
        self.folder.checkpoint(trainer, trainer.updates)
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
        if self.evaluated is not None:
            self.evaluated(trainer.updates, entry[self.metric])
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
