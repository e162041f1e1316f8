"""Gated Transformer-XL (Parisotto et al. 2020, "Stabilizing Transformers for Reinforcement Learning").

https://arxiv.org/abs/1910.06764; relative positions as in Transformer-XL (Dai et al. 2019, arXiv 1901.02860).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .attention import attend, sinusoids
from .core import MemoryCore, full_precision, head_width, output_map
from .registry import register_core

CHUNK = 64  # steps that attend at once


class GTrXLState(NamedTuple):
    window: Tensor  # m [B, w, D], the normalised inputs n of the last w steps, the oldest first
    filled: Tensor  # [B, w], 1 where that step was one of this episode, else 0


@register_core("gtrxl")
class GTrXLCore(MemoryCore):
    """One layer of a gated transformer, which attends to its own inputs of the last w steps; ``layers`` puts several in
    a row, each with a window of its own:

        e = W x + c,   n = LN(e)             the input at the width D of the layer; e = x where x has that width
        a = ReLU(attention(n, [m, n]))       over the window m, the n of the last w steps, and the present one
        h = g(e, a),   y = g'(h, ReLU(MLP(LN(h))))

    and each head's attention to the step δ steps ago, of which n_δ is left, has the logit

        ((q + u) · W_k n_δ + (q + v) · W_r sinusoids(δ)) / √d,   q = W_q n,

    where u and v are learned, and d = D / heads is the width of the head. The gates g and g', each with weights of its
    own, are those of a GRU, which start almost closed (b = 2), so that the layer begins close to the identity:

        g(e, a) = (1 - z) ∘ e + z ∘ tanh(W_g a + U_g (r ∘ e)),
        r = σ(W_r a + U_r e),   z = σ(W_z a + U_z e - b).

    Good at recalling exactly what was observed within the window, however much there was, once attention has learned to
    find it. Bad at anything before the window (of several layers: the sum of their windows), and at counting.

    The paper's steps attend to all of their segment and to so many before it, the early ones to fewer. Here each step
    attends to the same number, so that single steps and sequences give the same numbers, and gradients reach back
    through the window as far as the sequence goes.

    The output is y, followed by a linear map where ``output_size`` is given.

    :param hidden_size: D, of the layer and its window; the natural output width
    :param heads: number of attention heads, a divisor of ``hidden_size``
    :param window: number w of past steps that can be attended to
    :param mlp_size: width of the hidden layer of the MLP; None: four times that of the layer
    :param gate: the gate above, or none: all is added then (TrXL-I in the paper)
    :raises ValueError: if a size is not a positive integer, ``heads`` does not divide ``hidden_size``, or the kind of
        gate is unknown
    """

    sinusoids: Tensor

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 128,
        heads: Count = 4,
        window: Count = 128,
        mlp_size: Count | None = None,
        gate: Literal["gru", "none"] = "gru",
    ) -> None:
        require_options(GTrXLCore, locals())
        head_size = head_width(hidden_size, heads)
        shapes = ((window, hidden_size), (window,))
        super().__init__(input_size, hidden_size if output_size is None else output_size, GTrXLState, shapes)
        self.heads = heads
        self.embedding = nn.Identity() if input_size == hidden_size else nn.Linear(input_size, hidden_size)
        self.norm, self.mlp_norm = nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size)
        maps = (nn.Linear(hidden_size, hidden_size, bias=False) for _ in range(5))
        self.query, self.key, self.value, self.position, self.merge = maps
        self.content_bias = nn.Parameter(torch.zeros(heads, head_size))  # u
        self.position_bias = nn.Parameter(torch.zeros(heads, head_size))  # v
        hidden = 4 * hidden_size if mlp_size is None else mlp_size
        self.mlp = nn.Sequential(nn.Linear(hidden_size, hidden), nn.ReLU(), nn.Linear(hidden, hidden_size))
        self.attention_gate, self.mlp_gate = (GRUGate(hidden_size) if gate == "gru" else Sum() for _ in range(2))
        waves = sinusoids(window, hidden_size).to(self.dtype)  # [w + 1, D], of the oldest step first
        self.register_buffer("sinusoids", waves, persistent=False)
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: GTrXLState) -> tuple[Tensor, GTrXLState]:
        e, attended, state = self._attended(x, state)
        return self.out(self.mlp_gate(*self._between(e, attended)).squeeze(1)), state

    def sequence(self, x: Tensor, state: GTrXLState, starts: Tensor, since: int) -> tuple[Tensor, GTrXLState]:
        """All steps of a chunk attend at once, each to those of its episode within its window."""
        e = self.embedding(x).transpose(0, 1)  # [B, T, D]
        now = self.norm(e)
        if not (now.isfinite().all() and self.reset(state, starts[0]).window.isfinite().all()):
            return super().sequence(x, state, starts, since)  # a weight of zero does not keep it from what comes later
        outputs = []
        for begin in range(0, len(x), CHUNK):
            chunk = now[:, begin : begin + CHUNK]
            inputs, seen, state = self._look_back(chunk, state, starts[begin : begin + CHUNK].T)
            first = max(since - begin, 0)  # of the chunk's steps that are asked for
            if first < chunk.shape[1]:
                outputs.append(self._attend(chunk[:, first:], inputs[:, first:], seen[:, first:, first:]))
        y = self.mlp_gate(*self._between(e[:, since:], torch.cat(outputs, dim=1)))
        return self.out(y).transpose(0, 1), state

    @full_precision
    def gates(self, x: Tensor, state: GTrXLState) -> dict[str, Tensor]:
        e, attended, _ = self._attended(x, state)
        h, of_mlp = self._between(e, attended)
        gates: dict[str, Tensor] = {}
        for name, gate, mixed in (
            ("attention", self.attention_gate, (e, attended)),
            ("mlp", self.mlp_gate, (h, of_mlp)),
        ):
            if isinstance(gate, GRUGate):
                reset, update, _ = gate.parts(*mixed)
                gates |= {f"{name}_reset_gate": reset.squeeze(1), f"{name}_update_gate": update.squeeze(1)}
        return gates

    def _attended(self, x: Tensor, state: GTrXLState) -> tuple[Tensor, Tensor, GTrXLState]:
        """One step: e [B, 1, D], what it attends to [B, 1, D], and the window after it."""
        e = self.embedding(x).unsqueeze(1)  # [B, 1, D]
        now = self.norm(e)
        inputs = torch.cat([state.window, now], dim=1)  # [B, w + 1, D]
        filled = torch.cat([state.filled, torch.ones_like(state.filled[:, :1])], dim=1)  # [B, w + 1]
        return e, self._attend(now, inputs, filled.unsqueeze(1) > 0.5), GTrXLState(inputs[:, 1:], filled[:, 1:])

    def _look_back(self, now: Tensor, state: GTrXLState, starts: Tensor) -> tuple[Tensor, Tensor, GTrXLState]:
        """Normalised inputs [B, T, D], starts [B, T] -> the window and themselves [B, w + T, D], which of these each
        may see [B, T, w + T], and the window after them."""
        state = self.reset(state, starts[:, 0])
        steps, window = now.shape[1], state.window.shape[1]
        episode = torch.cat([torch.zeros_like(state.filled), starts[:, 1:].new_zeros(len(starts), 1), starts[:, 1:]], 1)
        episode = episode.cumsum(1)  # [B, w + T], counted from the one of the window
        filled = torch.cat([state.filled, torch.ones_like(now[..., 0])], dim=1)  # [B, w + T]
        inputs = torch.cat([state.window, now], dim=1)  # [B, w + T, D]
        behind = torch.arange(window + steps, device=now.device) - torch.arange(steps, device=now.device).unsqueeze(1)
        within = (behind >= 0) & (behind <= window)  # [T, w + T]
        seen = within & (filled > 0.5).unsqueeze(1) & (episode[:, window:].unsqueeze(2) == episode.unsqueeze(1))
        last = episode == episode[:, -1:]  # of the episode that goes on
        following = torch.where(last.unsqueeze(2), inputs, 0)[:, -window:], torch.where(last, filled, 0)[:, -window:]
        return inputs, seen, GTrXLState(*following)

    def _attend(self, now: Tensor, inputs: Tensor, seen: Tensor) -> Tensor:
        """Multi-head attention with relative positions, rectified.

        :param now: normalised inputs of the steps that attend [B, T, D]
        :param inputs: what they attend to: the window, and then themselves [B, w + T, D]
        :param seen: which of it each step may see [B, T, w + T]
        :return: [B, T, D]
        """
        query = self.query(now).unflatten(2, (self.heads, -1))  # [B, T, H, d]
        positions = self.position(self.sinusoids).unflatten(1, (self.heads, -1))  # [w + 1, H, d]
        by_age = torch.einsum("bthd,whd->bhtw", query + self.position_bias, positions)
        attended = attend(query + self.content_bias, self.key, self.value, inputs, seen, more=_skewed(by_age))
        return F.relu(self.merge(attended))

    def _between(self, e: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        """What the second gate mixes, h and what the MLP makes of it: e, attended [B, T, D] -> [B, T, D] each."""
        h = self.attention_gate(e, attended)
        return h, F.relu(self.mlp(self.mlp_norm(h)))


class GRUGate(nn.Module):
    """g: what is there, x [..., D], and what is to be added to it, y [..., D], mixed as a GRU mixes its state and a
    proposal."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_y = nn.Linear(width, 3 * width, bias=False)  # W_r, W_z, W_g
        self.of_x = nn.Linear(width, 2 * width, bias=False)  # U_r, U_z
        self.of_kept = nn.Linear(width, width, bias=False)  # U_g
        self.bias = nn.Parameter(torch.full((width,), 2.0))  # b

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        reset, update, of_y = self.parts(x, y)
        return torch.lerp(x, torch.tanh(of_y + self.of_kept(reset * x)), update)

    def parts(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """r, z and W_g y."""
        reset_y, update_y, of_y = self.of_y(y).chunk(3, dim=-1)
        reset_x, update_x = self.of_x(x).chunk(2, dim=-1)
        return torch.sigmoid(reset_y + reset_x), torch.sigmoid(update_y + update_x - self.bias), of_y


class Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def _skewed(by_age: Tensor) -> Tensor:
    """From the place in each step's own window to the place in what all steps attend to: row t moves t to the right,
    [..., T, w + 1] -> [..., T, w + T]."""
    steps, rows = by_age.shape[-2], by_age.shape[-1] + by_age.shape[-2] - 1
    return F.pad(by_age, (0, steps)).flatten(-2)[..., : steps * rows].unflatten(-1, (steps, rows))
