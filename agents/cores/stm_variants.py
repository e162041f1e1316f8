"""The variants of the SAM-based Two-memory Model: what they differ in, and the four named presets.

The paper and the code its authors released differ in a dozen places. Each is one option here; some more are our own.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ...common.checks import require_choice


def _check(name: str, kind: Any, value: Any) -> None:
    """Raise a ValueError unless a value is of its kind: a Literal, bool, float or optional float."""
    if get_origin(kind) is Literal:
        require_choice(name, value, get_args(kind))
    elif kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")
    elif value is None and kind is not float:
        return
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")


@dataclasses.dataclass(frozen=True)
class STMVariant:
    """One way to build the cell; ``STMCore`` explains each option.

    :raises ValueError: if an option has no such value, or can be seen to have no effect on this variant
    """

    normalized_input: bool
    write: Literal["auto", "hetero"]
    gated: bool
    squash_write: bool
    sigmoid_gates: bool
    item_update: Literal["sum", "average"]
    mix: Literal["columns", "rows"]
    qkv_norm: Literal["joint", "columns", "items"]
    read_axis: Literal["key", "value"]
    relation_update: Literal["add", "leak", "decay", "rebuild"]
    transfer_from: Literal["fresh", "accumulated"]
    readout_norm: bool
    readout_mlp: bool
    input_skip: bool
    learned_initial_state: bool
    glorot_init: bool
    alpha_start: float
    fixed_alpha1: float | None = None
    fixed_alpha2: float | None = None
    fixed_alpha3: float | None = None

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(STMVariant).items():
            _check(name, kind, getattr(self, name))
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


RELEASED = STMVariant(
    normalized_input=False,
    write="auto",
    gated=True,
    squash_write=True,
    sigmoid_gates=True,
    item_update="sum",
    mix="columns",
    qkv_norm="joint",
    read_axis="key",
    relation_update="leak",
    transfer_from="fresh",
    readout_norm=False,
    readout_mlp=True,
    input_skip=False,
    learned_initial_state=True,
    glorot_init=False,
    alpha_start=0.0,
)

PRESETS: dict[str, STMVariant] = {
    # Equations 4-14 and appendix D. The appendix prints no sigmoid around the gates, but a gate is one, and without it
    # the item memory overflows within a hundred steps. The relational memory grows without bound.
    "paper": STMVariant(
        normalized_input=False,
        write="hetero",
        gated=True,
        squash_write=False,
        sigmoid_gates=True,
        item_update="sum",
        mix="rows",
        qkv_norm="items",
        read_axis="value",
        relation_update="add",
        transfer_from="accumulated",
        readout_norm=False,
        readout_mlp=False,
        input_skip=False,
        learned_initial_state=False,
        glorot_init=False,
        alpha_start=0.1,
    ),
    # What produced the published supervised results.
    "released": RELEASED,
    # The cell of the published Pong figure.
    "released_rl": dataclasses.replace(
        RELEASED, qkv_norm="columns", relation_update="rebuild", readout_norm=True, glorot_init=True
    ),
    # What we recommend: bounded memories, and a gradient for every parameter from the first step.
    "default": dataclasses.replace(
        RELEASED,
        normalized_input=True,
        write="hetero",
        item_update="average",
        relation_update="decay",
        readout_norm=True,
        input_skip=True,
        alpha_start=0.1,
    ),
}


def stm_variant(preset: str, **options: Any) -> STMVariant:
    """A preset with some of its options changed.

    :param preset: name of a preset
    :param options: by name; None leaves the preset's value
    :raises ValueError: if the preset or the value of an option is unknown
    """
    require_choice("preset of core 'stm'", preset, PRESETS)
    return dataclasses.replace(PRESETS[preset], **{k: value for k, value in options.items() if value is not None})
