"""The supervised model: what stands around a memory on a task."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..agents.cores import MemoryCore
from ..common.options import Count, require_options
from ..common.saved import NotSealed, require_seal
from ..tasks.base import IGNORED, Kind
from .memories import make_memory


class SequenceModel(nn.Module):
    """From the inputs of a task to its answer: embedding, memory, head.

    The model reads the answer from the last steps of a sequence. Where the answer is one class, these steps carry
    inputs like any other; where it is a sequence, the inputs have ended by then as a rule, and the memory takes its
    steps with zeros.

    :param input_size: number of input features F
    :param output_size: number of logits O per step of the answer
    :param kind: form of the answer: class, bits or classes
    :param memory: name of a registered core, or attentional_lstm
    :param memory_kwargs: its options
    :param embedding_size: width of a linear map without bias before the memory, which embeds one-hot tokens; None: none
    :param net_arch: sizes of hidden ReLU layers between memory and logits; the memory then has its natural width
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count,
        kind: Kind,
        memory: str = "stm",
        memory_kwargs: Mapping[str, Any] | None = None,
        embedding_size: Count | None = None,
        net_arch: Sequence[Count] | None = None,
    ) -> None:
        super().__init__()
        memory_kwargs, net_arch = dict(memory_kwargs or {}), [] if net_arch is None else list(net_arch)
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        require_options(SequenceModel, arguments)
        self.arguments = _plain(arguments)
        self.kind = kind
        self.autocast_dtype: torch.dtype | None = None
        self.embedding: nn.Module = nn.Identity()
        if embedding_size is not None:
            self.embedding = nn.Linear(input_size, embedding_size, bias=False)
            nn.init.normal_(self.embedding.weight)  # as in nn.Embedding
            input_size = embedding_size
        self.memory = make_memory(memory, input_size, None if net_arch else output_size, **memory_kwargs)
        sizes = [self.memory.output_size, *net_arch, output_size] if net_arch else []
        layers = [layer for before, after in pairwise(sizes) for layer in (nn.ReLU(), nn.Linear(before, after))]
        self.head = nn.Sequential(*layers[1:])

    def forward(self, inputs: Tensor, steps: int, first: Tensor | None = None) -> Tensor:
        """inputs [T, B, F] -> logits of the last ``steps`` steps [S, B, O].

        Where ``first`` [B] is given, a sample begins at that step, and nothing before it has an influence.

        Only a core runs under autocast, where ``autocast_dtype`` is set, and decides itself which products are cast.
        """
        x = self.embedding(inputs)
        if not isinstance(self.memory, MemoryCore):
            return self.head(self.memory(x if self.kind == "class" else x[:-steps], steps, first))
        starts = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        if first is not None:
            starts[first, torch.arange(len(first), device=x.device)] = True
        dtype = self.autocast_dtype
        with torch.autocast(x.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            y, _ = self.memory(x, self.memory.initial_state(x.shape[1]), starts, since=-steps)
        return self.head(y)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy of the logits [S, B, O] against a task's targets, per class or bit: a scalar."""
        if self.kind == "bits":
            return F.binary_cross_entropy_with_logits(logits, targets)
        logits = logits[-1] if self.kind == "class" else logits.flatten(0, 1)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED)

    @classmethod
    def load(cls, path: str | os.PathLike[str], trusted: bool = False) -> SequenceModel:
        """The model of a supervised training, on the CPU, with the weights that did best on the validation set.

        It computes in float32; set ``autocast_dtype = torch.bfloat16`` to compute as a training in bf16 did.

        :param path: what ``SupervisedTrainer.save`` wrote, or a run folder, whose ``model.pt`` is loaded
        :param trusted: load also what has no checksum, as files of relmem 0.1
        :raises ValueError: if there is no such file, it is damaged or something else, or its weights are not finite
        """
        file = Path(path, "model.pt") if Path(path).is_dir() else Path(path)
        saved = read_saved(file, trusted)
        if not saved.get("arguments"):
            raise ValueError(f"'{file}' does not say how to build its model: its options are no plain values")
        model = cls(**saved["arguments"])
        weights = saved["best"] or saved["model"]
        require_finite(file, model, weights)
        model.load_state_dict(weights)
        return model.eval()


def read_saved(file: Any, trusted: bool = False) -> dict[str, Any]:
    """What ``SupervisedTrainer.save`` wrote, on the CPU. It is read as numbers and text, and runs nothing.

    :param trusted: read also what has no checksum, as files of relmem 0.1
    :raises ValueError: if there is no such file, or it is damaged or something else
    """
    try:
        content = file.read() if hasattr(file, "read") else Path(file).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"there is no saved model at '{file}'") from None
    try:
        require_seal(content, file)
    except NotSealed as error:
        if not trusted:
            raise ValueError(f"{error}: load it with trusted=True (--trusted) if you know who wrote it") from None
    try:
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load documents none of those that it raises
        raise ValueError(f"'{file}' holds no model of a supervised training") from error
    if not isinstance(saved, dict) or not saved.keys() >= {"model", "best", "optimizer", "history"}:
        raise ValueError(f"'{file}' holds no model of a supervised training")
    return saved


def require_finite(file: Any, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless the weights of a file are finite. Buffers of a model need not be, such as masks."""
    if not all(weights[name].isfinite().all() for name, _ in model.named_parameters() if name in weights):
        raise ValueError(f"'{file}' holds weights that are not finite: the training that saved it has diverged")


def _plain(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Arguments as a checkpoint may hold them, numbers of NumPy as Python's own; None where one is no plain value."""
    try:
        return json.loads(json.dumps(arguments, default=lambda value: value.tolist()))
    except (AttributeError, TypeError, ValueError):
        return None
