"""Supervised heads: what stands around a memory on a task, and the loss of each kind of answer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.checks import require_at_least, require_choice
from ..common.registry import Registry
from ..tasks.base import IGNORED
from .attentional_lstm import AttentionalLSTM
from .cores import MemoryCore
from .cores.registry import CORES

BASELINES = Registry[nn.Module]("core", given=CORES.given)
"""Supervised baselines that read a whole sequence at once, which no step core can."""
BASELINES.register("attentional_lstm")(AttentionalLSTM)


class SequenceModel(nn.Module):
    """From the inputs of a task to its answer: embedding, memory, head.

    The answer is read from the last steps of a sequence. Where it is one class, these carry inputs like any other;
    where it is a sequence, the inputs have ended by then as a rule, and the memory is stepped on with zeros.

    :param input_size: number of input features F
    :param output_size: number of logits O per step of the answer
    :param kind: of answer: class, bits or classes
    :param memory: name of a registered core, or attentional_lstm
    :param memory_kwargs: its options
    :param embedding_size: width of a linear map without bias before the memory, which embeds one-hot tokens; None: none
    :param net_arch: sizes of hidden ReLU layers between memory and logits; the memory then has its natural width
    :raises ValueError: if the memory or an option is unknown, or a size is not a positive integer
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        kind: str,
        memory: str = "stm",
        memory_kwargs: Mapping[str, Any] | None = None,
        embedding_size: int | None = None,
        net_arch: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        require_choice("kind of answer", kind, LOSSES)
        options, hidden = dict(memory_kwargs or {}), [] if net_arch is None else list(net_arch)
        self.arguments = plain(
            input_size=input_size,
            output_size=output_size,
            kind=kind,
            memory=memory,
            memory_kwargs=options,
            embedding_size=embedding_size,
            net_arch=hidden,
        )
        for size in hidden:
            require_at_least(1, net_arch=size)
        self.kind = kind
        self.autocast_dtype: torch.dtype | None = None
        self.embedding: nn.Module = nn.Identity()
        if embedding_size is not None:
            require_at_least(1, embedding_size=embedding_size)
            self.embedding = nn.Linear(input_size, embedding_size, bias=False)
            nn.init.normal_(self.embedding.weight)  # as in nn.Embedding
            input_size = embedding_size
        self.memory = make_memory(memory, input_size, None if hidden else output_size, **options)
        layers: list[nn.Module] = []
        if hidden:
            for before, after in pairwise([self.memory.output_size, *hidden]):
                layers += [nn.Linear(before, after), nn.ReLU()]
            layers.append(nn.Linear(hidden[-1], output_size))
        self.head = nn.Sequential(*layers)

    def forward(self, inputs: Tensor, steps: int, first: Tensor | None = None) -> Tensor:
        """inputs [T, B, F] -> logits of the last ``steps`` steps [S, B, O].

        Where ``first`` [B] is given, a sample begins at that step, and nothing before it has an influence.

        Only the memory runs under autocast, where ``autocast_dtype`` is set, and itself decides which of its products
        are cast.
        """
        x = self.embedding(inputs)
        dtype = self.autocast_dtype
        with torch.autocast(x.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            y = self._read(x, steps, first)
        return self.head(y)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SequenceModel:
        """The model of a supervised training, on the CPU, with the weights that did best on the validation set.

        It computes in float32; set ``autocast_dtype = torch.bfloat16`` to compute as a training in bf16 did.

        :param path: what ``SupervisedTrainer.save`` wrote, or a run folder, whose ``model.pt`` is loaded
        :raises ValueError: if there is no such file, or it is something else
        """
        file = Path(path, "model.pt") if Path(path).is_dir() else Path(path)
        try:
            saved = torch.load(file, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise ValueError(f"there is no saved model at '{file}'") from None
        except Exception as error:  # torch.load documents none of those that it raises
            raise ValueError(f"'{file}' holds no model of a supervised training") from error
        if not isinstance(saved, dict) or not saved.get("arguments"):
            raise ValueError(f"'{file}' does not say how to build its model: an older version saved it, or another one")
        model = cls(**saved["arguments"])
        model.load_state_dict(saved["best"] or saved["model"])
        return model.eval()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of the logits [S, B, O] against a task's targets, a scalar."""
        return LOSSES[self.kind](logits, targets)

    def _read(self, x: Tensor, steps: int, first: Tensor | None) -> Tensor:
        if not isinstance(self.memory, MemoryCore):
            return self.memory(x if self.kind == "class" else x[:-steps], steps, first)
        starts = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        if first is not None:
            starts[first, torch.arange(len(first), device=x.device)] = True
        return self.memory(x, self.memory.initial_state(x.shape[1]), starts, since=-steps)[0]


def _class_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of the last step: logits [S, B, C], targets [B]."""
    return F.cross_entropy(logits[-1], targets)


def _bits_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy per bit: logits [S, B, bits], targets [S, B, bits]."""
    return F.binary_cross_entropy_with_logits(logits, targets)


def _classes_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy per step that has a target: logits [S, B, C], targets [S, B]."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


LOSSES = {"class": _class_loss, "bits": _bits_loss, "classes": _classes_loss}


def plain(**arguments: Any) -> dict[str, Any] | None:
    """Arguments as a checkpoint may hold them, numbers of NumPy as Python's own; None where one is no plain value."""
    try:
        return json.loads(json.dumps(arguments, default=lambda value: value.tolist()))
    except (AttributeError, TypeError, ValueError):
        return None


def memories() -> tuple[str, ...]:
    """The names that ``make_memory`` knows. A core of the user's takes precedence over a baseline of its name."""
    return tuple(dict.fromkeys((*CORES.names(), *BASELINES.names())))


def memory_factory(name: str) -> Callable[..., Any]:
    """The class or function behind a name.

    :raises ValueError: if it is unknown
    """
    return _registry(name).factory(name)


def make_memory(name: str, input_size: int, output_size: int | None = None, **options: Any) -> Any:
    """Build a core or one of the baselines that are none, as ``make_core`` does.

    :raises ValueError: for an unknown name or option, or an option out of range
    """
    return _registry(name).make(name, input_size, output_size, **options)


def _registry(name: str) -> Registry[Any]:
    if name in BASELINES.names() and name not in CORES.names():
        return BASELINES
    if ":" not in name:
        require_choice("core", name, memories())
    return CORES
