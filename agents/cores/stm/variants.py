"""The variants of the SAM-based Two-memory Model: what they differ in, and the four named presets.

The paper and the code its authors released differ in a dozen places. Each is one option here; some more are our own.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from ....common.options import require_option, require_options

Preset = Literal["default", "paper", "released", "released_rl"]


@dataclasses.dataclass(frozen=True)
class STMVariant:
    """One way to build the cell; what is not given is as in the authors' supervised code.

    :param normalized_input: whether f1(x) and f2(x) are brought to zero mean and unit variance, so that their product
        neither saturates nor vanishes with the scale of the input
    :param write: auto writes f1(x) ⊗ f1(x) into the item memory, hetero f1(x) ⊗ f2(x)
    :param gated: whether gates decide what the item memory takes in and forgets
    :param squash_write: whether what is written passes a tanh, where gated
    :param sigmoid_gates: whether gates are squashed into (0, 1)
    :param item_update: sum (two gates decide what is added and what is kept) or average (the gates sum to one, and what
        is transferred passes the input gate too, so that the item memory stays bounded), where gated
    :param mix: what the linear maps of the item memory mix: its columns, or its rows and then without bias vectors
    :param qkv_norm: layer normalisation of queries, keys and values: joint over all, over the columns that each row of
        the item memory yields, or of each by itself (items)
    :param read_axis: which axis of the relational memory an input cues: key (and values are read) or value
    :param relation_update: add what α1 scales, leak (α1 scales the old), decay (a learned average over the past, with a
        time constant of its own per query) or rebuild (nothing is carried)
    :param transfer_from: what flows back into the item memory: the fresh relations or the accumulated memory
    :param readout_norm: whether the read-out passes a layer normalisation
    :param readout_mlp: whether a ReLU network follows the read-out
    :param input_skip: whether a linear map of the input is added to the output, so that what needs no memory need not
        pass through it
    :param learned_initial_state: whether episodes begin with learned memories, or with zeros
    :param glorot_init: Glorot-uniform weights and zero biases, or PyTorch's default
    :param alpha_start: start of the learned α1 (write), α2 (read) and α3 (transfer)
    :param fixed_alpha1: α1 to hold fixed instead of learning it
    :param fixed_alpha2: α2 to hold fixed
    :param fixed_alpha3: α3 to hold fixed
    :raises ValueError: if an option has no such value, or can be seen to have no effect on this variant
    """

    normalized_input: bool = False
    write: Literal["auto", "hetero"] = "auto"
    gated: bool = True
    squash_write: bool = True
    sigmoid_gates: bool = True
    item_update: Literal["sum", "average"] = "sum"
    mix: Literal["columns", "rows"] = "columns"
    qkv_norm: Literal["joint", "columns", "items"] = "joint"
    read_axis: Literal["key", "value"] = "key"
    relation_update: Literal["add", "leak", "decay", "rebuild"] = "leak"
    transfer_from: Literal["fresh", "accumulated"] = "fresh"
    readout_norm: bool = False
    readout_mlp: bool = True
    input_skip: bool = False
    learned_initial_state: bool = True
    glorot_init: bool = False
    alpha_start: float = 0.0
    fixed_alpha1: float | None = None
    fixed_alpha2: float | None = None
    fixed_alpha3: float | None = None

    def __post_init__(self) -> None:
        require_options(STMVariant, vars(self))
        unused = {"rebuild": ("fixed_alpha1", "fixed_alpha2"), "decay": ("fixed_alpha1",)}
        for name in unused.get(self.relation_update, ()):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect where relation_update is '{self.relation_update}'")
        if self.item_update == "average" and not self.sigmoid_gates:
            raise ValueError("sigmoid_gates has no effect where item_update is 'average': its gates sum to 1")

    @property
    def carries_relation(self) -> bool:
        """Whether the relational memory lives on from step to step."""
        return self.relation_update != "rebuild"

    @property
    def averages(self) -> bool:
        """Whether the gates sum to one, and the transfer passes the input gate."""
        return self.gated and self.item_update == "average"


PRESETS: dict[Preset, STMVariant] = {
    # Equations 4-14 and appendix D. The appendix prints no sigmoid around the gates, but a gate is one, and without it
    # the item memory overflows within a hundred steps. The relational memory grows without bound.
    "paper": STMVariant(
        write="hetero",
        squash_write=False,
        mix="rows",
        qkv_norm="items",
        read_axis="value",
        relation_update="add",
        transfer_from="accumulated",
        readout_mlp=False,
        learned_initial_state=False,
        alpha_start=0.1,
    ),
    # What produced the published supervised results.
    "released": STMVariant(),
    # The cell of the published Pong figure.
    "released_rl": STMVariant(qkv_norm="columns", relation_update="rebuild", readout_norm=True, glorot_init=True),
    # What we recommend: bounded memories, and a gradient for every parameter from the first step.
    "default": STMVariant(
        normalized_input=True,
        write="hetero",
        item_update="average",
        relation_update="decay",
        readout_norm=True,
        input_skip=True,
        alpha_start=0.1,
    ),
}


def stm_variant(preset: Preset, **options: Any) -> STMVariant:
    """A preset with some of its options changed.

    :param options: by name; None leaves the preset's value
    :raises ValueError: if the preset or the value of an option is unknown
    """
    require_option("preset", Preset, preset)
    return dataclasses.replace(PRESETS[preset], **{k: value for k, value in options.items() if value is not None})
