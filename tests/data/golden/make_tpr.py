"""Writes tpr.npz: the TPR-RNN of APodolskiy/TPR-RNN-Torch, at commit 81cfdca (MIT).

git clone https://github.com/APodolskiy/TPR-RNN-Torch && python tests/data/golden/make_tpr.py TPR-RNN-Torch
"""

import sys

import torch
from golden_trace import draw, save
from torch.func import functional_call

sys.path.insert(0, sys.argv[1])
from tpr_rnn.model.tpr_rnn import InferenceModule, UpdateModule

FEATURES, ENTITY, RELATION, HIDDEN, STEPS, BATCH = 5, 4, 3, 6, 5, 2
config = {"entity_size": ENTITY, "role_size": RELATION, "hidden_size": HIDDEN, "symbol_size": FEATURES}
config |= {"vocab_size": ENTITY, "LN": True}
UPDATE = {
    "entities.e1": "e.0",
    "entities.e2": "e.1",
    "relations.r1": "r.0",
    "relations.r2": "r.1",
    "relations.r3": "r.2",
}
INFERENCE = {"entities.n": "e.0", "relations.l1": "r.0", "relations.l2": "r.1", "relations.l3": "r.2"}


def mlps(p, names):
    """Parameters of MLPs under their names."""
    theirs = {}
    for ours, name in names.items():
        for layer, number in (("0", "1"), ("2", "2")):
            theirs[f"{name}.W{number}"] = p[f"{ours}.{layer}.weight"].T
            theirs[f"{name}.b{number}"] = p[f"{ours}.{layer}.bias"]
    return theirs


def run(p, x):
    """After every step the story so far is asked about, by the input of the step."""
    norms = {f"l{i + 1}.layer.{part}": p[f"norms.{i}.{kind}"] for i in range(3) for part, kind in KINDS}
    outputs = []
    for t in range(len(x)):
        memory = functional_call(update, mlps(p, UPDATE), (x[: t + 1].transpose(0, 1),))
        outputs.append(functional_call(inference, mlps(p, INFERENCE) | norms, (x[t], memory)))
    return torch.stack(outputs)


KINDS = (("gain", "weight"), ("bias", "bias"))
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
update, inference = UpdateModule(config), InferenceModule(config)
inference.Z.data = torch.eye(ENTITY)  # the output is the sum that it maps to words
shapes = {}
for ours in (*UPDATE, *INFERENCE):
    size = ENTITY if ours.startswith("entities") else RELATION
    shapes |= {f"{ours}.0.weight": (HIDDEN, FEATURES), f"{ours}.0.bias": (HIDDEN,)}
    shapes |= {f"{ours}.2.weight": (size, HIDDEN), f"{ours}.2.bias": (size,)}
shapes |= {f"norms.{i}.{kind}": (ENTITY,) for i in range(3) for kind in ("weight", "bias")}
save("tpr", draw(shapes), torch.randn(STEPS, BATCH, FEATURES), run)
