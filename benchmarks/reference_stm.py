"""STM's ``released`` preset as its equations are usually run: a loop over time, one tensor operation for each term.

What makes it slow is what the formulation asks for and not how it is written here: the relations of a step are summed
over keys in the full product of queries, keys, keys' entries and values' entries [B, n, n, d, d], and every step reads
its relational memory by the dense maps G1 and G2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relmem.agents.cores.stm import STMCore


def reference_stm(core: STMCore, x: Tensor) -> Tensor:
    """Outputs [T, B, O] for inputs x [T, B, F] from the initial state, in float32, with the parameters of a core.

    Equation numbers are those of the paper, https://arxiv.org/abs/2002.03519.

    :param core: of the preset ``released``
    """
    n, d = core.f3.out_features, core.f1.out_features
    item = core.initial_item.expand(x.shape[1], d, d)
    relation = core.initial_relation.expand(x.shape[1], n, d, d)
    outputs = []
    for x_t in x:
        row, cue, address = core.f1(x_t), core.f2(x_t), core.f3(x_t).softmax(dim=1)  # [B, d], [B, d], [B, n]

        # Equations 9 and 10, appendix D.
        write = row.unsqueeze(2) * row.unsqueeze(1)  # [B, d, d]
        gates = core.gate_memory(item.tanh()) + core.gate_input(row).unsqueeze(1)  # [B, d, 2 * d]
        take, keep = gates.chunk(2, dim=2)
        written = (take + core.input_bias).sigmoid() * write.tanh() + (keep + core.forget_bias).sigmoid() * item

        # Equation 11.
        read = torch.einsum("bn,bk,bnkv->bv", address, cue, relation)
        attended = written + core.alpha2 * read.unsqueeze(2) * cue.unsqueeze(1)

        # Equations 4 to 8.
        query, key, value = core.qkv_norm(core.qkv(attended)).mT.chunk(3, dim=1)  # each [B, n, d]
        bindings = torch.tanh(query.unsqueeze(2) * key.unsqueeze(1))  # [B, n queries, n keys, d]
        sam = (bindings.unsqueeze(4) * value[:, None, :, None, :]).sum(dim=2)  # [B, n, n, d, d] -> [B, n, d, d]

        # Equation 13: a row for each entry of the values.
        item = written + core.alpha3 * core.transfer(sam.permute(0, 3, 1, 2).flatten(2))  # [B, d, n * d] -> [B, d, d]

        # Equations 12 and 14.
        relation = core.alpha1 * relation + sam
        features = core.relation_readout(relation.flatten(2))  # [B, n, d * d] -> [B, n, r]
        outputs.append(core.out(core.mlp(core.output_readout(features.flatten(1)))))
    return torch.stack(outputs)
