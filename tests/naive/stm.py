"""STM written once more from its equations: what the core is compared with, in numbers and in speed.

Nothing is shared with the core but its weights and its options. Relations are summed as in equation 8, over the full
product of queries, keys, keys' entries and values' entries.
"""

import torch
from torch import Tensor


def naive_stm(core, x: Tensor, item: Tensor, relation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of one sequence: x [F], item [d, d], relation [n, d, d] -> output [O], item, relation."""
    p, v = dict(core.named_parameters()) | dict(core.named_buffers()), core.variant
    n, d, _ = relation.shape

    def affine(name: str, u: Tensor) -> Tensor:
        return p[f"{name}.weight"] @ u + p.get(f"{name}.bias", 0)

    def normalise(name: str, u: Tensor) -> Tensor:
        variance = u.var(unbiased=False)
        return (u - u.mean()) / torch.sqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    f1, f2 = affine("f1", x), affine("f2", x)
    f3 = affine("f3", x).exp() / affine("f3", x).exp().sum()
    if v.normalized_input:
        f1, f2 = ((f - f.mean()) / torch.sqrt(f.var(unbiased=False) + 1e-5) for f in (f1, f2))

    # Equations 9 and 10, appendix D: the maps of the item memory mix its columns or its rows.
    rows = v.mix == "rows"
    write = torch.outer(f1, f1 if v.write == "auto" else f2)
    if v.gated:
        mixed = [affine("gate_memory", (item.T if rows else item)[i].tanh()) for i in range(d)]
        gates = torch.stack([row + affine("gate_input", f1) for row in mixed])  # [d, 2 * d]
        take, keep = gates[:, :d] + p["input_bias"], gates[:, d:] + p["forget_bias"]
        if rows:
            take, keep = take.T, keep.T
        if v.item_update == "average":  # the two gates compete, as in a softmax
            take, keep = take.exp() / (take.exp() + keep.exp()), keep.exp() / (take.exp() + keep.exp())
        elif v.sigmoid_gates:
            take, keep = 1 / (1 + torch.exp(-take)), 1 / (1 + torch.exp(-keep))
        written = take * (write.tanh() if v.squash_write else write) + keep * item
    else:
        written = item + write

    # Equation 11.
    if v.read_axis == "key":
        read = torch.einsum("s,k,skv->v", f3, f2, relation)
    else:
        read = torch.einsum("s,skv,v->k", f3, relation, f2)
    attended = written if v.relation_update == "rebuild" else written + p["alpha2"] * torch.outer(read, f2)

    # Equations 4 to 6: [d, 3 n].
    qkv = torch.stack([affine("qkv", (attended.T if rows else attended)[i]) for i in range(d)])
    if v.qkv_norm == "joint":
        qkv = normalise("qkv_norm", qkv)
    elif v.qkv_norm == "columns":
        qkv = torch.stack([normalise("qkv_norm", qkv[i]) for i in range(d)])
    else:
        qkv = torch.stack([normalise("qkv_norm", qkv[:, i]) for i in range(3 * n)], dim=1)
    query, key, value = qkv.T[:n], qkv.T[n : 2 * n], qkv.T[2 * n :]

    # Equations 7 and 8, by the product that a fast implementation avoids: [n queries, n keys, d, d].
    product = torch.einsum("sjk,jv->sjkv", torch.tanh(torch.einsum("sk,jk->sjk", query, key)), value)
    sam = product.sum(dim=1)

    # Equation 12.
    if v.relation_update == "add":
        relation = relation + p["alpha1"] * sam
    elif v.relation_update == "leak":
        relation = p["alpha1"] * relation + sam
    elif v.relation_update == "decay":
        keep = (1 / (1 + torch.exp(-p["decay"])))[:, None, None]
        relation = keep * relation + (1 - keep) * sam
    else:
        relation = sam

    # Equation 13.
    source = sam if v.transfer_from == "fresh" else relation
    flow = torch.stack([affine("transfer", source[:, :, value].flatten()) for value in range(d)])  # [d values, d]
    passed = take if v.gated and v.item_update == "average" else 1.0
    item = written + passed * p["alpha3"] * (flow.T if rows else flow)

    # Equation 14.
    features = torch.cat([affine("relation_readout", matrix.flatten()) for matrix in relation])
    out = affine("output_readout", features)
    if v.readout_norm:
        out = normalise("readout_norm", out)
    if v.readout_mlp:
        out = affine("out", affine("mlp.2", affine("mlp.0", out).clamp(min=0)).clamp(min=0))
    if v.input_skip:
        out = out + affine("skip", x)
    return out, item, relation


def naive_stm_sequence(core, x: Tensor, state, starts: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """x [T, B, F], starts [T, B] -> outputs [T, B, O], and the item and relational memory of each sequence."""
    n, d = core.f3.out_features, core.f1.out_features
    outputs, ends = [], []
    for b in range(x.shape[1]):
        item = state.item[b]
        relation = state.relation[b] if hasattr(state, "relation") else x.new_zeros(n, d, d)
        column = []
        for t in range(len(x)):
            if starts[t, b]:
                item, relation = x.new_zeros(d, d), x.new_zeros(n, d, d)
                if core.variant.learned_initial_state:
                    item, relation = core.initial_item, core.initial_relation
            y, item, relation = naive_stm(core, x[t, b], item, relation)
            column.append(y)
        outputs.append(torch.stack(column))
        ends.append((item, relation))
    return torch.stack(outputs, dim=1), ends


def released_stm(core, x: Tensor) -> Tensor:
    """The preset ``released`` as its equations are usually run: a loop over time, one tensor operation for each term.

    What makes it slow is what the formulation asks for and not how it is written here: the relations of a step are
    summed over keys in the full product of queries, keys, keys' entries and values' entries [B, n, n, d, d], and every
    step reads its relational memory by the dense maps G1 and G2. Equation numbers are those of the paper,
    https://arxiv.org/abs/2002.03519.

    :param core: an STM of the preset ``released``; only its parameters are used
    :param x: inputs [T, B, F], which follow the initial state
    :return: outputs [T, B, O]
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
