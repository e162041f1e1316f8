"""Supervised training of any memory on any task."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import torch
from stable_baselines3.common.utils import get_device
from torch import Tensor, nn

from ..agents import Diverged
from ..agents.allocator import keep_freed_memory
from ..agents.cores import MemoryCore
from ..agents.precision import autocast_dtype
from ..agents.schedule import as_schedule
from ..common.files import replacing
from ..common.options import (
    Count,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Range,
    Rate,
    require_option,
    require_options,
)
from ..common.saved import seal
from ..tasks.base import Batch, Task
from .model import SequenceModel, read_saved, require_finite

UPDATES_PER_EVALUATION = 500  # where no fixed training set gives epochs
TRAINING_SEED = 2**31  # plus the run's seed; with one below 10^9 the sum is the seed of no fixed set


class SupervisedTrainer:
    """Trains a ``SequenceModel`` on a task, and keeps the weights that did best on the validation set.

    Where the task has a fixed training set, every epoch goes through it in a new order, without the remainder that
    fills no batch; otherwise the trainer draws every batch afresh.

    :param task: what to learn
    :param core: name of a registered core, or attentional_lstm
    :param core_kwargs: its options
    :param embedding_size: width of a linear map before the core, for one-hot tokens; null is none
    :param net_arch: sizes of hidden ReLU layers between core and logits; null is none
    :param optimizer: rmsprop or adam
    :param learning_rate: a number, or lin_NUMBER to go from that number to zero over the training
    :param batch_size: samples per update
    :param alpha: RMSprop's decay of the mean square of gradients
    :param momentum: RMSprop's
    :param max_grad_value: each element of a gradient is clipped to this size, before anything else; null is never
    :param max_grad_norm: gradients are scaled down to this norm; null is never
    :param eval_every: updates between evaluations; null is an epoch, or 500 where batches are drawn afresh
    :param eval_size: samples of the validation set that an evaluation looks at; null is all
    :param stop_at: the training ends when the task's metric reaches this on the validation set, an accuracy at most 1;
        null is never
    :param precision: of the large matrix products of the core: bf16, fp32, or auto (bf16 where the hardware multiplies
        it natively); states, sums and all else are float32
    :param seed: of weights and of training samples, or of their order where a set of them is fixed; validation and
        test sets are the same for all seeds
    :param device: cpu, cuda or auto
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
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        seed: Natural = 0,
        device: torch.device | str = "auto",
    ) -> None:
        net_arch = None if net_arch is None else list(net_arch)
        require_options(SupervisedTrainer, locals())
        require_option("stop_at", (Fraction if task.metric == "accuracy" else NonNegative) | None, stop_at)
        if not {"valid", "test"} <= task.split_sizes.keys():
            raise ValueError(f"a task needs the fixed sets valid and test, but this has {', '.join(task.split_sizes)}")
        self.task = task
        self.device = get_device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(seed)
        sizes = task.input_size, task.output_size
        self.model = SequenceModel(*sizes, task.kind, core, core_kwargs, embedding_size, net_arch).to(self.device)
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
        self.batch_size, self.stop_at = batch_size, stop_at
        self.max_grad_value, self.max_grad_norm = max_grad_value, max_grad_norm

        self._training_set = task.split("train").to(self.device) if task.fixed else None
        if self._training_set is not None:
            limits = Range(1, self._training_set.size, why="the size of the training set")
            require_option("batch_size", Annotated[int, limits], batch_size)
        self._validation_set = task.split("valid").rows(slice(eval_size))
        self.eval_every = eval_every or self.updates_per_epoch or UPDATES_PER_EVALUATION
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
        :param callback: called after every update that left finite weights; the training ends where it returns False
        :return: the outcome; None where the callback ended the training
        """
        began = time.monotonic() - self.seconds
        while (outcome := self.outcome(total_updates, max_minutes)) is None:
            updated = self._update(1 - self.updates / total_updates)
            self.seconds = time.monotonic() - began
            if not updated or self.updates % self.eval_every == 0 or self.outcome(total_updates, max_minutes):
                self._log_evaluation(self.train_loss if updated else math.nan)
            if updated and callback is not None and callback(self) is False:
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
        goal = self.stop_at if self.task.higher_is_better else -self.stop_at
        return self.history[-1] if self._score(self.history[-1]) >= goal else None

    @property
    def best_evaluation(self) -> dict[str, float] | None:
        """The entry of ``history`` that belongs to ``best``. Diverged weights never are, whatever their score."""
        finite = (entry for entry in self.history if math.isfinite(entry["train_loss"]))
        return max(finite, key=self._score, default=None)

    def _score(self, entry: dict[str, float]) -> float:
        """What is the higher the better."""
        score = entry[f"valid_{self.task.metric}"]
        return score if self.task.higher_is_better else -score

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
        data, logits = data.to(self.device), []
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
        latest = self._weights()
        self.model.load_state_dict(self.best or latest)
        names = [name for name in self.task.split_sizes if name.startswith("test")]
        try:
            return {name: self.evaluate(self.task.split(name).rows(slice(size))) for name in names}
        finally:
            self.model.load_state_dict(latest)

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    def _update(self, remaining: float) -> bool:
        """One gradient step. False where the training has diverged: there is no step after a loss or gradient that is
        not finite, and one after which the weights are not finite is the last."""
        batch, parameters = self._next_batch(), list(self.model.parameters())
        loss = self.model.loss(self.model(batch.inputs, batch.answer_steps, batch.first), batch.targets)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(remaining)
        self.optimizer.zero_grad()
        loss.backward()
        if self.max_grad_value is not None:
            nn.utils.clip_grad_value_(parameters, self.max_grad_value)
        norm = nn.utils.clip_grad_norm_(parameters, self.max_grad_norm or math.inf)
        if not (loss.isfinite() & norm.isfinite()):
            return False
        self.optimizer.step()
        if not self._has_finite_weights():
            return False
        self._loss_sum += loss.detach()
        self.updates += 1
        return True

    def _has_finite_weights(self) -> bool:
        """Whether the weights, and their squares, are finite."""
        return bool(nn.utils.get_total_norm(self.model.parameters()).isfinite())

    def _next_batch(self) -> Batch:
        if self._training_set is None:
            return self.task.batch(self.batch_size, self._generator)
        if len(self._order) < self.batch_size:
            size = self._training_set.size
            self._order = torch.randperm(size, generator=self._generator, device=self.device)
        index, self._order = self._order[: self.batch_size], self._order[self.batch_size :]
        return self._training_set.rows(index)

    def _log_evaluation(self, train_loss: float) -> None:
        """Add an evaluation to the history, and keep the weights if it is the best."""
        scores = self.evaluate(self._validation_set)
        self.history.append(
            {
                "update": self.updates,
                "seconds": self.seconds,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "train_loss": train_loss,
                **{f"valid_{name}": score for name, score in scores.items()},
            }
        )
        self._loss_sum.zero_()
        if self.best_evaluation is self.history[-1]:
            self.best = self._weights()

    def save(self, file: str | Path | IO[bytes]) -> None:
        """Write everything that a training needs to go on as if nothing had been (see ``restore``), and the model (see
        ``SequenceModel.load``).

        :raises Diverged: if the weights are not finite
        """
        if not self._has_finite_weights():
            raise Diverged("the weights are not finite any more: they are not saved")
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
        torch.save(state, content := io.BytesIO())
        sealed = seal(content.getvalue())
        if not isinstance(file, str | Path):
            file.write(sealed)
            return
        with replacing(Path(file)) as written:
            written.write(sealed)

    def restore(self, file: str | Path | IO[bytes], trusted: bool = False) -> None:
        """Take up the state that a trainer of the same task and model saved.

        On another kind of device than it was saved on, the training samples are others from here on.

        :param trusted: take up also what has no checksum, as files of relmem 0.1
        :raises ValueError: if the file is damaged or no checkpoint, does not fit, or its weights are not finite
        """
        state = read_saved(file, trusted)
        for weights in (state["model"], state["best"]):
            require_finite(file, self.model, weights)
        try:
            if ("betas" in state["optimizer"]["param_groups"][0]) != isinstance(self.optimizer, torch.optim.Adam):
                raise ValueError("another optimizer")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
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
