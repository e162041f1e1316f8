"""minGRU and minLSTM (Feng et al. 2024, "Were RNNs All We Needed?"): gated recurrences whose gates do not look at the
hidden state, so that all steps of a sequence can be computed at once."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .registry import register_core
from .scan import linear_scan

Candidate = Literal["linear", "positive"]


class MinState(NamedTuple):
    hidden: Tensor  # [B, H]


class _MinCore(MemoryCore):
    """h_t = keep_t ∘ h_{t-1} + write_t, where x_t alone decides both.

    Sequences run by this recurrence itself, which is stable, since gates lie in (0, 1): no logarithms as in the paper's
    appendix B are needed, nor hidden states that are positive.
    """

    def __init__(self, input_size: int, output_size: int | None, hidden_size: int, candidate: str, maps: int) -> None:
        super().__init__(input_size, hidden_size if output_size is None else output_size, MinState, ((hidden_size,),))
        self.candidate = candidate
        self.project = nn.Linear(input_size, maps * hidden_size)
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: MinState) -> tuple[Tensor, MinState]:
        keep, write = self._update(x)
        hidden = keep * state.hidden + write
        return self.out(hidden), MinState(hidden)

    def sequence(self, x: Tensor, state: MinState, starts: Tensor, since: int) -> tuple[Tensor, MinState]:
        hidden = linear_scan(*self._update(x), state.hidden, starts)
        return self.out(hidden[since:]), MinState(hidden[-1])

    def _update(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept of the hidden state, and what is added: x [..., F] -> keep, write [..., H]."""
        raise NotImplementedError

    def _candidate(self, logits: Tensor) -> Tensor:
        """The proposed hidden state; where it is to be positive, by the paper's g (appendix B.3)."""
        if self.candidate == "linear":
            return logits
        return torch.where(logits >= 0, logits + 0.5, logits.sigmoid())


@register_core("min_gru")
class MinGRUCore(_MinCore):
    """One minGRU layer (Feng et al. 2024, section 3.1), followed by a linear map where ``output_size`` is given:

        z_t = σ(W_z x_t + b_z),  h̃_t = W_h x_t + b_h,  h_t = (1 - z_t) ∘ h_{t-1} + z_t ∘ h̃_t.

    Good at holding what an input says is worth holding, over long delays, and fast. Bad at what depends on the order of
    inputs, such as counting or parity: what it writes does not depend on what it holds. Blocks in a stack help.

    :param hidden_size: number of units H; the natural output width
    :param candidate: whether h̃ is linear, or made positive as in the paper's computation in log space (appendix B.3)
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 256,
        candidate: Candidate = "linear",
    ) -> None:
        require_options(MinGRUCore, locals())
        super().__init__(input_size, output_size, hidden_size, candidate, maps=2)

    def _update(self, x: Tensor) -> tuple[Tensor, Tensor]:
        candidate, update_gate = self.project(x).chunk(2, dim=-1)
        return torch.sigmoid(-update_gate), torch.sigmoid(update_gate) * self._candidate(candidate)

    @full_precision
    def gates(self, x: Tensor, state: MinState) -> dict[str, Tensor]:
        """z: near 1, the candidate takes the place of the hidden state (in ``gru``, as torch has it, near 0)."""
        return {"update_gate": self.project(x).chunk(2, dim=-1)[1].sigmoid()}


@register_core("min_lstm")
class MinLSTMCore(_MinCore):
    """One minLSTM layer (Feng et al. 2024, section 3.2), followed by a linear map where ``output_size`` is given:

        f_t = σ(W_f x_t + b_f),  i_t = σ(W_i x_t + b_i),  h̃_t = W_h x_t + b_h,
        f'_t = f_t / (f_t + i_t),  i'_t = i_t / (f_t + i_t),  h_t = f'_t ∘ h_{t-1} + i'_t ∘ h̃_t.

    Good and bad at what ``min_gru`` is: two gates that add up to one are one gate, with another gradient.

    :param hidden_size: number of units H; the natural output width
    :param candidate: whether h̃ is linear, or made positive as in the paper's computation in log space (appendix B.3)
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 256,
        candidate: Candidate = "linear",
    ) -> None:
        require_options(MinLSTMCore, locals())
        super().__init__(input_size, output_size, hidden_size, candidate, maps=3)

    def _update(self, x: Tensor) -> tuple[Tensor, Tensor]:
        candidate, forget, take = self.project(x).chunk(3, dim=-1)
        balance = F.logsigmoid(forget) - F.logsigmoid(take)  # f / (f + i) = σ(log f - log i), also where both vanish
        return torch.sigmoid(balance), torch.sigmoid(-balance) * self._candidate(candidate)

    @full_precision
    def gates(self, x: Tensor, state: MinState) -> dict[str, Tensor]:
        """f' alone, since i' = 1 - f'."""
        return {"forget_gate": self._update(x)[0]}
