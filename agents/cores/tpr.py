"""TPR-RNN (Schlag and Schmidhuber 2018): a memory of relations between entities, a tensor of third order."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .registry import register_core
from .scan import loop
from .unit import unit_length

# Entities e and relations r that are written; the entity n and the relations l that lead from it in three steps.
ENTITIES, RELATIONS = ("e1", "e2", "n"), ("r1", "r2", "r3", "l1", "l2", "l3")


class TPRState(NamedTuple):
    memory: Tensor  # F [B, e, r, e]: entity, relation, the entity that is related to it


class Projection(NamedTuple):
    """What the input alone decides about a step, so that a whole sequence is projected at once."""

    entities: Tensor  # e1, e2, n [..., 3, e]
    relations: Tensor  # r1, r2, r3, l1, l2, l3 [..., 6, r]


@register_core("tpr")
class TPRCore(MemoryCore):
    """A tensor F of entity ⊗ relation ⊗ entity, which at each step is written three times and then read three times.

    "Learning to reason with third order tensor products" (Schlag and Schmidhuber 2018, https://arxiv.org/abs/1811.12143).
    With F(e, r) for the entity that F relates to e by r, and vectors that are MLPs of the input:

        w = F(e1, r1),  m = F(e1, r2),  b = F(e2, r3)                    what is there
        F ← F + e1 ⊗ r1 ⊗ (e2 - w) + e1 ⊗ r2 ⊗ (w - m) + e2 ⊗ r3 ⊗ (e1 - b)    write, move, and link back
        i1 = LN(F(n, l1)),  i2 = LN(F(i1, l2)),  i3 = LN(F(i2, l3)),  y = i1 + i2 + i3

    Story and question of the paper are one here: every input both writes and asks. The output is y, followed by a
    linear map where ``output_size`` is given (the paper's Z).

    Good at chains of facts about who or what is where. Bad at magnitudes, and at long streams in which nothing is
    overwritten, since it never forgets by itself.

    :param entity_size: width e of entities, the natural output width
    :param relation_size: width r of relations
    :param hidden_size: width of the hidden layer of each MLP
    :param unit_vectors: whether entities and relations have length 1, so that a write replaces just what was there. In
        the paper they have not, and the memory of a long episode can grow beyond all bounds
    :raises ValueError: if a size is not a positive integer
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        entity_size: Count = 32,
        relation_size: Count = 16,
        hidden_size: Count = 64,
        unit_vectors: bool = True,
    ) -> None:
        require_options(TPRCore, locals())
        shape = (entity_size, relation_size, entity_size)
        super().__init__(input_size, entity_size if output_size is None else output_size, TPRState, (shape,))
        self.unit_vectors = unit_vectors

        def mlp(size: int) -> nn.Module:
            return nn.Sequential(nn.Linear(input_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, size), nn.Tanh())

        self.entities = nn.ModuleDict({name: mlp(entity_size) for name in ENTITIES})
        self.relations = nn.ModuleDict({name: mlp(relation_size) for name in RELATIONS})
        self.norms = nn.ModuleList(nn.LayerNorm(entity_size) for _ in range(3))
        self.out = output_map(entity_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: TPRState) -> tuple[Tensor, TPRState]:
        y, state = self._step(self._project(x), state)
        return self.out(y), state

    def sequence(self, x: Tensor, state: TPRState, starts: Tensor, since: int) -> tuple[Tensor, TPRState]:
        """The loop over steps, but inputs are projected and outputs mapped for all steps at once."""
        inputs = [Projection(*parts) for parts in zip(*self._project(x), strict=True)]
        outputs, state = loop(self._step, self.reset, inputs, state, starts)
        return self.out(torch.stack(outputs[since:])), state

    def _step(self, projection: Projection, state: TPRState) -> tuple[Tensor, TPRState]:
        e1, e2, n = projection.entities.unbind(1)  # [B, e]
        r1, r2, r3, l1, l2, l3 = projection.relations.unbind(1)  # [B, r]
        memory = state.memory
        written = projection.entities[:, :2]  # e1, e2 [B, 2, e]
        of_e1, of_e2 = _related(memory, written).unbind(1)  # F(e1, ·) and F(e2, ·) [B, r, e]
        w, m, b = _contract(r1, of_e1), _contract(r2, of_e1), _contract(r3, of_e2)
        to_e1 = _outer(r1, e2 - w) + _outer(r2, w - m)  # [B, r, e]
        to_e2 = _outer(r3, e1 - b)
        added = torch.stack([to_e1, to_e2], dim=1).flatten(2)  # [B, 2, r * e]
        memory = torch.baddbmm(memory.flatten(2), written.mT, added).view_as(memory)

        y, entity = torch.zeros_like(n), n
        for relation, norm in zip((l1, l2, l3), self.norms, strict=True):
            entity = norm(_contract(relation, _related(memory, entity.unsqueeze(1)).squeeze(1)))
            y = y + entity
        return y, TPRState(memory)

    def _project(self, x: Tensor) -> Projection:
        entities = torch.stack([self.entities[name](x) for name in ENTITIES], dim=-2)
        relations = torch.stack([self.relations[name](x) for name in RELATIONS], dim=-2)
        if self.unit_vectors:
            entities, relations = unit_length(entities), unit_length(relations)
        return Projection(entities, relations)


def _related(memory: Tensor, entities: Tensor) -> Tensor:
    """F(e, ·): memory [B, e, r, e], entities [B, n, e] -> [B, n, r, e]."""
    return (entities @ memory.flatten(2)).unflatten(2, memory.shape[2:])


def _contract(relation: Tensor, related: Tensor) -> Tensor:
    """relation [B, r], F(e, ·) [B, r, e] -> F(e, relation) [B, e]."""
    return (relation.unsqueeze(1) @ related).squeeze(1)


def _outer(relation: Tensor, entity: Tensor) -> Tensor:
    """relation [B, r], entity [B, e] -> [B, r, e]."""
    return relation.unsqueeze(2) * entity.unsqueeze(1)
