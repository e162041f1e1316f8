"""Supervised training of any memory on any task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import torch
from stable_baselines3.common.utils import get_device
from torch import Tensor, nn

from ..common.options import Count, Fraction, NonNegative, Positive, Rate, require_option, require_options
from ..tasks.base import Batch, Task
from .allocator import keep_freed_memory
from .cores import MemoryCore
from .heads import SequenceModel
from .precision import autocast_dtype
from .schedule import as_schedule

UPDATES_PER_EVALUATION = 500  # where no fixed training set gives epochs
TRAINING_SEED = 2**31  # plus the run's seed; with one below 10^9 the sum is the seed of no fixed set


class SupervisedTrainer:
    """Trains a ``SequenceModel`` on a task, and keeps the weights that did best on the validation set.

    Where the task has a fixed training set, it is gone through in a new order every epoch, without the remainder that
    fills no batch; otherwise every batch is drawn afresh.

    :param task: what to learn
    :param core: name of a registered core, or attentional_lstm
    :param core_kwargs: its options
    :param embedding_size: width of a linear map before the core; None: none
    :param net_arch: sizes of hidden ReLU layers between core and logits; None: none
    :param optimizer: rmsprop or adam
    :param learning_rate: a number, or a schedule of the remaining progress (1 to 0)
    :param batch_size: samples per update
    :param alpha: RMSprop's decay of the mean square of gradients
    :param momentum: RMSprop's
    :param max_grad_value: each element of a gradient is clipped to this size, before anything else; None: never
    :param max_grad_norm: the whole gradient is scaled down to this norm; None: never
    :param eval_every: updates between evaluations; None: an epoch, or 500 where batches are drawn afresh
    :param eval_size: samples of the validation set that are looked at; None: all
    :param stop_at: the training ends when the task's metric reaches this on the validation set, an accuracy at most 1;
        None: never
    :param precision: of the large matrix products of stm and rmc: bf16, fp32, or auto (bf16 where the hardware
        multiplies it natively); states, sums and all else are float32
    :param seed: of weights and of training samples, or of their order where a set of them is fixed; validation and
        test sets are the same for all
    :param device: cpu, cuda or auto
    :raises ValueError: if an argument is unknown or out of range, or the task lacks the set ``valid`` or ``test``
    """

    def __init__(
        self,
        task: Task,
        core: str = "stm",
        core_kwargs: Mapping[str, Any] | None = None,
        embedding_size: Count | None = None,
        net_arch: Sequence[Count] | None = None,
        optimizer: Literal["rmsprop", "adam"] = "rmsprop",
        learning_rate: Rate = 1e-4,
        batch_size: Count = 128,
        alpha: Fraction = 0.95,
        momentum: Fraction = 0.9,
        max_grad_value: Positive | None = 10.0,
        max_grad_norm: Positive | None = None,
        eval_every: Count | None = None,
        eval_size: Count | None = None,
        stop_at: NonNegative | None = None,
        precision: str = "auto",
        seed: int = 0,
        device: torch.device | str = "auto",
    ) -> None:
        require_options(SupervisedTrainer, locals())
        require_option("stop_at", (Fraction if task.metric == "accuracy" else NonNegative) | None, stop_at)
        for split in ("valid", "test"):
            if split not in task.split_sizes:
                raise ValueError(
                    f"a task needs the fixed sets valid and test, but this has {', '.join(task.split_sizes)}"
                )
        self.task = task
        self.device = get_device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(seed)
        self.model = SequenceModel(
            task.input_size, task.output_size, task.kind, core, core_kwargs, embedding_size, net_arch
        ).to(self.device)
        if task.asks_while_answering and not isinstance(self.model.memory, MemoryCore):
            raise ValueError(f"{core} reads its inputs before it answers, but this task goes on asking: choose a core")
        self.model.autocast_dtype = autocast_dtype(precision, self.device)
        parameters = self.model.parameters()
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(parameters)
            if optimizer == "adam"
            else torch.optim.RMSprop(parameters, alpha=alpha, momentum=momentum)
        )
        self.learning_rate = as_schedule(learning_rate)
        self.batch_size = batch_size
        self.max_grad_value, self.max_grad_norm = max_grad_value, max_grad_norm
        self.eval_size, self.stop_at = eval_size, stop_at

        self._training_set: Batch | None = None
        if task.fixed:
            self._training_set = task.split("train").to(self.device)
            if self._training_set.size < batch_size:
                raise ValueError(
                    f"batch_size must be at most {self._training_set.size}, the size of the training set, "
                    f"got {batch_size}"
                )
        self.eval_every = eval_every or self.updates_per_epoch or UPDATES_PER_EVALUATION
        self._validation_set = task.split("valid")
        self._generator = torch.Generator(self.device).manual_seed(TRAINING_SEED + seed)
        self._order = torch.empty(0, dtype=torch.int64, device=self.device)  # what is left of this epoch
        self._loss_sum = torch.zeros((), device=self.device)  # since the last evaluation
        self.updates = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}

    @property
    def updates_per_epoch(self) -> int | None:
        """Updates that go through the fixed training set once; None where there is none."""
        return None if self._training_set is None else self._training_set.size // self.batch_size

    def learn(
        self,
        total_updates: int,
        max_minutes: float | None = None,
        callback: Callable[[SupervisedTrainer], bool | None] | None = None,
    ) -> str | None:
        """Train until ``outcome`` says why to end, and evaluate there.

        Called again with a later end, a training with a constant learning rate comes to the same weights as if it had
        had that end from the start; its history keeps the evaluation at the earlier one.

        :param total_updates: updates in all, those of earlier calls and of a restored checkpoint included
        :param max_minutes: minutes in all, likewise
        :param callback: called after every update; the training ends where it returns False
        :return: the outcome; None where the callback ended the training
        """
        began = time.monotonic() - self.seconds
        while (outcome := self.outcome(total_updates, max_minutes)) is None:
            self._update(1 - self.updates / total_updates)
            self.seconds = time.monotonic() - began
            if self.updates % self.eval_every == 0 or self.outcome(total_updates, max_minutes):
                self._log_evaluation()
            if callback is not None and callback(self) is False:
                return None
        return outcome

    def outcome(self, total_updates: int, max_minutes: float | None = None) -> str | None:
        """Why a training of this length is over: converged, diverged, finished or out of time. None if it is not."""
        if self.history and not math.isfinite(self.history[-1]["train_loss"]):
            return "diverged"
        if self.converged_at is not None:
            return "converged"
        if self.updates >= total_updates:
            return "finished"
        return "out of time" if max_minutes is not None and self.seconds >= 60 * max_minutes else None

    @property
    def converged_at(self) -> dict[str, float] | None:
        """The evaluation that reached ``stop_at``: the last, as the training ends there."""
        if self.stop_at is None or not self.history:
            return None
        sign = 1 if self.task.higher_is_better else -1
        latest = self.history[-1]
        return latest if sign * latest[f"valid_{self.task.metric}"] >= sign * self.stop_at else None

    @property
    def best_evaluation(self) -> dict[str, float] | None:
        """The entry of ``history`` that belongs to ``best``. Diverged weights never are, whatever their score."""
        sign = 1 if self.task.higher_is_better else -1
        finite = (entry for entry in self.history if math.isfinite(entry["valid_loss"]))
        return max(finite, key=lambda e: sign * e[f"valid_{self.task.metric}"], default=None)

    @property
    def train_loss(self) -> float:
        """Mean loss of the updates since the last evaluation; right after one, of those before it. NaN at the start."""
        past = int(self.history[-1]["update"]) if self.history else 0
        if self.updates == past:
            return self.history[-1]["train_loss"] if self.history else math.nan
        return float(self._loss_sum) / (self.updates - past)

    @torch.no_grad()
    def evaluate(self, data: Batch) -> dict[str, float]:
        """The loss and the task's metrics on a set of samples, the metrics over all of them at once."""
        data = data.rows(slice(None)).to(self.device)
        logits = []
        self.model.eval()
        for begin in range(0, data.size, self.batch_size):
            part = data.rows(slice(begin, begin + self.batch_size))
            logits.append(self.model(part.inputs, part.answer_steps, part.first))
        self.model.train()
        outputs = torch.cat(logits, dim=1)  # [S, N, O]
        scores = {"loss": self.model.loss(outputs, data.targets), **self.task.evaluate(outputs, data)}
        return {name: float(score) for name, score in scores.items()}

    def test(self, size: int | None = None) -> dict[str, dict[str, float]]:
        """Evaluate the best weights on every test set of the task.

        :param size: samples of each set that are looked at; None: all
        """
        latest = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.best or latest)
        names = [name for name in self.task.split_sizes if name.startswith("test")]
        try:
            return {name: self.evaluate(self.task.split(name).rows(slice(size))) for name in names}
        finally:
            self.model.load_state_dict(latest)

    def _update(self, remaining: float) -> None:
        batch = self._next_batch()
        loss = self.model.loss(self.model(batch.inputs, batch.answer_steps, batch.first), batch.targets)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(remaining)
        self.optimizer.zero_grad()
        loss.backward()
        if self.max_grad_value is not None:
            nn.utils.clip_grad_value_(self.model.parameters(), self.max_grad_value)
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimizer.step()
        self._loss_sum += loss.detach()
        self.updates += 1

    def _next_batch(self) -> Batch:
        if self._training_set is None:
            return self.task.batch(self.batch_size, self._generator)
        if len(self._order) < self.batch_size:
            size = self._training_set.size
            self._order = torch.randperm(size, generator=self._generator, device=self.device)
        index, self._order = self._order[: self.batch_size], self._order[self.batch_size :]
        return self._training_set.rows(index)

    def _log_evaluation(self) -> None:
        """Add an evaluation to the history, and keep the weights if it is the best."""
        scores = self.evaluate(self._validation_set.rows(slice(self.eval_size)))
        self.history.append(
            {
                "update": self.updates,
                "seconds": self.seconds,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "train_loss": self.train_loss,
                **{f"valid_{name}": score for name, score in scores.items()},
            }
        )
        self._loss_sum.zero_()
        if self.best_evaluation is self.history[-1]:
            self.best = {name: value.clone() for name, value in self.model.state_dict().items()}

    def save(self, file: str | Path | IO[bytes]) -> None:
        """Write everything that a training needs to go on as if nothing had been (see ``restore``), and the model (see
        ``SequenceModel.load``)."""
        state = {
            "arguments": self.model.arguments,
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "random": torch.get_rng_state(),  # of what a memory draws, as dropout does
            "cuda_random": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "order": self._order,
            "loss_sum": self._loss_sum,
            "updates": self.updates,
            "seconds": self.seconds,
            "history": self.history,
        }
        torch.save(state, file)

    def restore(self, file: str | Path | IO[bytes]) -> None:
        """Take up the state that a trainer of the same task and model saved.

        On another kind of device than it was saved on, the training samples are others from here on.

        :raises ValueError: if the file is no checkpoint, or does not fit
        """
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load documents none of those that it raises
            raise ValueError(f"'{file}' is no checkpoint of a supervised training") from error
        if not isinstance(state, dict) or "history" not in state:
            raise ValueError(f"'{file}' is no checkpoint of a supervised training")
        try:
            if ("betas" in state["optimizer"]["param_groups"][0]) != isinstance(self.optimizer, torch.optim.Adam):
                raise ValueError("another optimizer")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"checkpoint '{file}' is of another model or optimizer") from error
        self.best = {name: value.to(self.device) for name, value in state["best"].items()}
        self._order, self._loss_sum = state["order"].to(self.device), state["loss_sum"].to(self.device)
        self.updates, self.seconds, self.history = state["updates"], state["seconds"], state["history"]
        if state.get("random") is not None:  # None: an older version saved it
            torch.set_rng_state(state["random"])
        if state.get("cuda_random") is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_random"], self.device)
        if len(state["generator"]) == len(self._generator.get_state()):
            self._generator.set_state(state["generator"])
        else:
            self._generator.manual_seed(self._generator.initial_seed() + self.updates)
