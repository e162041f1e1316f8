"""The wiring of the released Pong agent: an LSTM before an STM."""

from __future__ import annotations

from typing import Any

from ...common.options import Count, require_options, takes_options_of
from .blocks import StackedCore
from .lstm import LSTMCore
from .registry import register_core
from .stm import STMCore


@register_core("lstm_stm")
@takes_options_of(STMCore)
def lstm_stm(
    input_size: Count, output_size: Count | None = None, lstm_size: Count = 256, **options: Any
) -> StackedCore:
    """An LSTM before an STM of the same output width, both outputs side by side.

    :param lstm_size: number of cells of the LSTM
    :param options: the options of ``stm``
    :raises ValueError: if an option is out of range
    """
    require_options(lstm_stm, locals())
    lstm = LSTMCore(input_size, hidden_size=lstm_size)
    stm = STMCore(lstm_size, lstm_size, **options)
    return StackedCore({"lstm": lstm, "stm": stm}, concatenate=True, output_size=output_size)
