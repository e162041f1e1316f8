"""The SAM-based Two-memory Model (Le, Tran and Venkatesh 2020): a memory of items M^i and a memory of relations M^r.

A step as the paper has it, with its equation numbers (https://arxiv.org/abs/2002.03519); ``STMCore.step`` follows it:

    X_t   = f1(x_t) ⊗ f2(x_t)                                         (9)   what the input writes
    M^i_t = F_t ∘ M^i_{t-1} + I_t ∘ X_t                               (10)  forget gate F, input gate I: appendix D
    v^r_t = softmax(f3(x_t)) M^r_{t-1} f2(x_t)                        (11)  what it reads from the relations
    M^r_t = M^r_{t-1} + α1 SAM(M^i_t + α2 v^r_t ⊗ f2(x_t))            (12)
    M^i_t = M^i_t + α3 G1(M^r_t)                                      (13)  transfer from relations to items
    y_t   = G3(G2(M^r_t))                                             (14)

Self-attentive associative memory reads n queries, keys and values from a matrix, each a normalised linear map of it
(4 to 6), and relates them by outer-product attention, one d x d matrix for each query s:

    SAM(M)[s] = Σ_j tanh(q_s ∘ k_j) ⊗ v_j                             (7, 8)

Where the authors' released code differs, there is an option (``variants.py``).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....common.options import Count, require_options, takes_options_of
from ..core import MemoryCore, full_precision
from ..registry import register_core
from .sequence import has_fast_path, run
from .variants import Preset, STMVariant, stm_variant

READOUT = 64  # width of the read-out o_t before the output MLP
HIDDEN = 128  # width of the output MLP, and of the output where none is asked for
AUTOCAST_ITEM_SIZE = 64  # smaller products do not save what it costs to cast their factors


class STMState(NamedTuple):
    item: Tensor  # M^i [B, d, d]
    relation: Tensor  # M^r [B, n, d, d]: one matrix per query, keys by values


class STMItemState(NamedTuple):
    """State of the variants that rebuild the relational memory at every step."""

    item: Tensor  # M^i [B, d, d]


class Write(NamedTuple):
    """What the input alone decides about a step, so that a whole sequence is projected at once."""

    factors: tuple[Tensor, Tensor]  # X_t is the outer product of these [..., d], squashed or not
    gates: Tensor  # the input's share of both gates [..., 2 * d]
    address: Tensor  # softmax(f3(x)) [..., n]
    cue: Tensor  # f2(x) [..., d]


class Relations(NamedTuple):
    """SAM as factors: its n matrices have rank n, so what is linear in them is cheaper on the factors."""

    bindings: Tensor  # F(q_s ∘ k_j) [..., n keys, n queries, d]
    values: Tensor  # v_j [..., n keys, d]


@register_core("stm")
@takes_options_of(STMVariant, optional=True)
class STMCore(MemoryCore):
    """Items are written into an associative memory ``item``; self-attentive associative memory (SAM) relates them
    pairwise and writes into the memory ``relation``, from which the output is read.

    A preset is a set of options; an option that is given wins over the preset.

    :param preset: default (recommended), released (the authors' supervised code), released_rl (their Pong code: the
        relational memory is rebuilt at every step) or paper (the equations: for short episodes only, its relational
        memory grows without bound). An option that is left open has the preset's value
    :param queries: number n of queries, of keys and values, and of matrices in the relational memory
    :param item_size: width d of an item; the memories hold d * d and n * d * d numbers
    :param relation_size: number r of features read from each matrix of the relational memory
    :param options: those of ``STMVariant``
    :raises ValueError: if a size is not a positive integer, or a preset or option is unknown, or one of those
        that can be seen to have no effect
    """

    keeps_autocast = True
    alpha1: Tensor
    alpha2: Tensor
    alpha3: Tensor

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        preset: Preset = "default",
        queries: Count = 4,
        item_size: Count = 64,
        relation_size: Count = 64,
        **options: Any,
    ) -> None:
        require_options(STMCore, locals() | options)
        variant = stm_variant(preset, **options)
        n, d = queries, item_size
        item, relation = (d, d), (n, d, d)
        super().__init__(
            input_size,
            HIDDEN if output_size is None else output_size,
            STMState if variant.carries_relation else STMItemState,
            (item, relation) if variant.carries_relation else (item,),
        )
        self.variant = variant
        bias = variant.mix == "columns"
        self.f1 = nn.Linear(input_size, d)
        self.f2 = nn.Linear(input_size, d)
        self.f3 = nn.Linear(input_size, n)
        self.gate_input = nn.Linear(d, 2 * d, bias=bias)
        self.gate_memory = nn.Linear(d, 2 * d, bias=bias)
        self.input_bias = nn.Parameter(torch.tensor(0.0))
        self.forget_bias = nn.Parameter(torch.tensor(1.0))
        self.qkv = nn.Linear(d, 3 * n, bias=bias)
        self.qkv_norm = nn.LayerNorm({"joint": (d, 3 * n), "columns": (3 * n,), "items": (d,)}[variant.qkv_norm])
        self.transfer = nn.Linear(n * d, d)  # G1
        self.relation_readout = nn.Linear(d * d, relation_size)  # G2
        readout_size = READOUT if variant.readout_mlp else self.output_size
        self.output_readout = nn.Linear(n * relation_size, readout_size)  # G3
        self.readout_norm = nn.LayerNorm(readout_size) if variant.readout_norm else nn.Identity()
        layers = [nn.Linear(READOUT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()]
        self.mlp = nn.Sequential(*layers if variant.readout_mlp else ())
        self.out = nn.Linear(HIDDEN, self.output_size) if variant.readout_mlp else nn.Identity()
        if variant.input_skip:
            self.skip = nn.Linear(input_size, self.output_size)
        self._create_alphas(n)
        if variant.learned_initial_state:
            self.initial_item = nn.Parameter(torch.empty(d, d).uniform_(-1, 1) / math.sqrt(2 * d))
            self.initial_relation = nn.Parameter(torch.empty(n, d, d).uniform_(-1, 1) / math.sqrt(2 * d + n))
        if variant.glorot_init:
            for module in (module for module in self.modules() if isinstance(module, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _create_alphas(self, n: int) -> None:
        """α1, α2 and α3: learned parameters, or buffers where they are held fixed; and the decay per query."""
        for name in ("alpha1", "alpha2", "alpha3"):
            fixed = getattr(self.variant, f"fixed_{name}")
            if fixed is not None:
                self.register_buffer(name, torch.full((1,), float(fixed)))
            elif name != "alpha1" or self.variant.relation_update != "decay":
                self.register_parameter(name, nn.Parameter(torch.full((1,), float(self.variant.alpha_start))))
        if self.variant.relation_update == "decay":
            # Time constants from 2 to 32 steps: λ = 1 - 1 / τ = sigmoid(log(τ - 1)).
            self.decay = nn.Parameter(torch.linspace(0.0, math.log(31.0), n))

    def initial_state(self, batch_size: int) -> Any:
        if not self.variant.learned_initial_state:
            return super().initial_state(batch_size)
        learned = {"item": self.initial_item, "relation": self.initial_relation}
        return self._state_type(*(learned[name].expand(batch_size, *shape) for name, shape in self.state_spec.items()))

    @full_precision
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The update: x [B, F], state -> (y [B, O], next state). ``sequence``, for many steps, must change with it."""
        carries_relation, write = self.variant.carries_relation, self.project(x)
        item, gate = self._write_item(write, state.item)  # Eq. 9 and 10
        attended = item
        if carries_relation:
            address, cue = write.address.unsqueeze(0), write.cue.unsqueeze(0)
            read = self.read_relation(address, cue, state.relation).squeeze(0)  # Eq. 11: v^r [B, d]
            attended = torch.baddbmm(item, (self.alpha2 * read).unsqueeze(2), write.cue.unsqueeze(1))
        sam = self._attend(attended)
        fade, gain = self.rates()
        relation = self._matrices(Relations(gain * sam.bindings, sam.values))  # [B, n, d, d]
        if carries_relation:
            relation = fade.unsqueeze(-1) * state.relation + relation  # Eq. 12
        item = item + gate * self._transfer(sam, relation)  # Eq. 13
        y = self._read_out(self.read_features(relation), x)  # Eq. 14
        return y, STMState(item, relation) if carries_relation else STMItemState(item)

    def sequence(self, x: Tensor, state: Any, starts: Tensor, since: int) -> tuple[Tensor, Any]:
        """The numbers of a loop of steps, with less work and memory (``stm/sequence.py``).

        Under ``torch.autocast`` the large matrix products run in its dtype, sums and memories in that of the
        parameters; if items are small, all in the latter.
        """
        device = x.device.type
        large = self.dtype == torch.float32 and self.f1.out_features >= AUTOCAST_ITEM_SIZE
        mixed = large and torch.is_autocast_enabled(device)
        products = torch.get_autocast_dtype(device) if mixed else self.dtype
        with torch.autocast(device, enabled=False):
            if not has_fast_path(self):
                return super().sequence(x, state, starts, since)
            features, end = run(self, x, state, starts, since, products)
            return self._read_out(features, x[since:]), end

    @full_precision
    def gates(self, x: Tensor, state: Any) -> dict[str, Tensor]:
        if not (self.variant.gated and self.variant.sigmoid_gates):
            return {}
        return dict(zip(("input_gate", "forget_gate"), self._gates(self.project(x), state.item), strict=True))

    def project(self, x: Tensor) -> Write:
        """x [..., F] -> what it writes and where it reads."""
        row, cue = self.f1(x), self.f2(x)  # [..., d]
        if self.variant.normalized_input:
            row, cue = F.layer_norm(row, row.shape[-1:]), F.layer_norm(cue, cue.shape[-1:])
        factors = (row, row if self.variant.write == "auto" else cue)
        biases = torch.stack([self.input_bias, self.forget_bias]).repeat_interleave(self.f1.out_features)
        return Write(factors, self.gate_input(row) + biases, self.f3(x).softmax(-1), cue)

    def _write_item(self, write: Write, item: Tensor) -> tuple[Tensor, Tensor | float]:
        """Eq. 9 and 10: item [B, d, d] -> [B, d, d], and the gate that the transfer (Eq. 13) passes."""
        row, column = write.factors
        candidate = row.unsqueeze(2) * column.unsqueeze(1)
        if not self.variant.gated:
            return item + candidate, 1.0
        input_gate, forget_gate = self._gates(write, item)
        candidate = candidate.tanh() if self.variant.squash_write else candidate
        return torch.addcmul(input_gate * candidate, forget_gate, item), input_gate if self.variant.averages else 1.0

    def _gates(self, write: Write, item: Tensor) -> tuple[Tensor, Tensor]:
        """Appendix D: input and forget gate, each [B, d, d]."""
        gates = self.gate_memory(self.mixed_last(item.tanh())) + write.gates.unsqueeze(1)  # [B, d, 2 * d]
        input_gate, forget_gate = gates.chunk(2, dim=2)
        if self.variant.averages:
            input_gate = (input_gate - forget_gate).sigmoid()
            forget_gate = 1 - input_gate
        elif self.variant.sigmoid_gates:
            input_gate, forget_gate = input_gate.sigmoid(), forget_gate.sigmoid()
        return self.mixed_last(input_gate), self.mixed_last(forget_gate)

    def _attend(self, item: Tensor) -> Relations:
        """Eq. 4 to 7: item [B, d, d] -> SAM."""
        rows = self.qkv(self.mixed_last(item))  # [B, d, 3 * n]
        rows = self.qkv_norm(rows.mT) if self.variant.qkv_norm == "items" else self.qkv_norm(rows).mT  # [B, 3 * n, d]
        query, key, value = rows.chunk(3, dim=1)  # each [B, n, d]
        return Relations(torch.tanh(key.unsqueeze(2) * query.unsqueeze(1)), value)

    def _matrices(self, relations: Relations) -> Tensor:
        """Eq. 8: the matrices Σ_j F(q_s ∘ k_j) ⊗ v_j of each query s, [..., n, d, d]."""
        bindings, values = relations
        return torch.matmul(bindings.flatten(-2).mT, values).unflatten(-2, bindings.shape[-2:])

    def rates(self) -> tuple[Tensor, Tensor]:
        """λ and g of M^r_t = λ M^r_{t-1} + g SAM_t, each [n, 1] or [1]."""
        one = self._like.new_ones(1)
        match self.variant.relation_update:
            case "add":
                return one, self.alpha1
            case "leak":
                return self.alpha1, one
            case "decay":
                fade = self.decay.sigmoid().unsqueeze(1)
                return fade, 1 - fade
        return torch.zeros_like(one), one

    def _transfer(self, sam: Relations, relation: Tensor) -> Tensor:
        """Eq. 13: what flows back into the item memory [B, d, d]."""
        bias = self.alpha3 * self.transfer.bias
        if self.variant.transfer_from == "fresh":  # G1(Fᵀ V) = Vᵀ (F G1ᵀ), where F G1ᵀ is small
            mixed = self.alpha3 * F.linear(sam.bindings.flatten(2), self.transfer.weight)  # [B, n, d]
            return self.mixed_last(torch.baddbmm(bias, sam.values.mT, mixed))
        return self.mixed_last(F.linear(relation.flatten(1, 2).mT, self.alpha3 * self.transfer.weight, bias))

    def read_relation(self, address: Tensor, cue: Tensor, relation: Tensor) -> Tensor:
        """Eq. 11 but for α2: what cues read at these addresses, address [T, B, n], cue [T, B, d] -> [T, B, d].

        :param relation: M^r [B, n, d, d], or [n, d, d] where it is the same for all
        """
        if self.variant.read_axis == "key":
            addressed = (address.unsqueeze(3) * cue.unsqueeze(2)).flatten(2)  # [T, B, n * d]
            if relation.dim() == 3:
                return addressed @ relation.flatten(0, 1)
            return torch.bmm(addressed.transpose(0, 1), relation.flatten(1, 2)).transpose(0, 1)
        rows = relation.flatten(-3, -2).expand(cue.shape[1], -1, -1)  # [B, n * d, d]
        matched = torch.bmm(rows, cue.permute(1, 2, 0)).unflatten(1, relation.shape[-3:-1])  # [B, n, d, T]
        return (matched * address.permute(1, 2, 0).unsqueeze(2)).sum(1).permute(2, 0, 1)

    def read_features(self, relation: Tensor) -> Tensor:
        """G2 of Eq. 14 but for its bias: M^r [..., n, d, d] -> features [..., n, r]."""
        return F.linear(relation.flatten(-2), self.relation_readout.weight)

    def _read_out(self, features: Tensor, x: Tensor) -> Tensor:
        """The rest of Eq. 14: features [..., n, r] -> y [..., O]."""
        features = features + self.relation_readout.bias
        y = self.out(self.mlp(self.readout_norm(self.output_readout(features.flatten(-2)))))
        return y + self.skip(x) if self.variant.input_skip else y

    def mixed_last(self, memory: Tensor) -> Tensor:
        """Bring the axis that linear maps mix to the end, where they act; or bring it back."""
        return memory if self.variant.mix == "columns" else memory.mT
