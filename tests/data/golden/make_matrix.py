"""Writes linear_attention.npz, retnet.npz, gla.npz, mlstm.npz and shm.npz: values of public implementations.

* fla-org/flash-linear-attention at commit bc3b101 (MIT): the naive operations of linear attention, retention and gated
  linear attention. What stands around them (projections, normalisation, gate) is written out here; the rotation of
  queries and keys is theirs.
* NX-AI/xlstm at commit 032a6fb (Apache 2.0): the recurrent form of the mLSTM cell, its epsilon set to zero.
* thaihungle/SHM at commit 651f9e2 (Apache 2.0): the module of shm.py.

Their casts to float32 are read as casts to float64. Clone the three, have einops installed, and run:
python tests/data/golden/make_matrix.py flash-linear-attention xlstm SHM
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from golden_trace import draw, save

FEATURES, HEADS, KEY, VALUE, RANK, MEMORY, T, B = 5, 2, 4, 3, 2, 4, 12, 2


def load(repository: str, file: str) -> dict:
    """What a file defines, in double precision."""
    text = (Path(repository) / file).read_text()
    for single, double in (("float32", "float64"), ("torch.float)", "torch.double)"), (".float()", ".double()")):
        text = text.replace(single, double)
    names: dict = {"__name__": file}
    exec(compile(text, file, "exec"), names)
    return names


def heads(p, x, *layers):
    """Projections of x [T, B, F], each [B, T, H, size]."""
    return [F.linear(x.transpose(0, 1), p[f"{n}.weight"], p[f"{n}.bias"]).unflatten(-1, (HEADS, -1)) for n in layers]


def gated(p, x, read):
    """swish(W_G x) ∘ LN(read-outs [B, T, H, v]) -> [T, B, H * v]"""
    normal = F.layer_norm(read, (VALUE,), p["norm.weight"], p["norm.bias"])
    (gate,) = heads(p, x, "gate")
    return (F.silu(gate) * normal).flatten(-2).transpose(0, 1)


def linear_attention(p, x):
    query, key, value = heads(p, x, "query", "key", "value")
    query, key = F.elu(query) + 1, F.elu(key) + 1
    read, total = (attention(query, key, v, scale=1.0)[0] for v in (value, torch.ones_like(value)))
    return (read / (total + 1e-6)).flatten(-2).transpose(0, 1)


def retnet(p, x):
    query, key, value = heads(p, x, "query", "key", "value")
    angles = torch.arange(T).view(T, 1) * 10000.0 ** (-torch.arange(0, KEY, 2, dtype=torch.float64) / KEY)
    query, key = (rotate(u, angles.cos(), angles.sin()).transpose(1, 2) for u in (query, key))
    return gated(p, x, retention(query, key, value.transpose(1, 2)).transpose(1, 2))


def gla(p, x):
    query, key, value = heads(p, x, "query", "key", "value")
    logits = F.linear(F.linear(x.transpose(0, 1), p["decay.0.weight"]), p["decay.1.weight"], p["decay.1.bias"])
    return gated(p, x, gated_attention(query, key, value, F.logsigmoid(logits).unflatten(-1, (HEADS, -1)) / 16)[0])


def mlstm(p, x):
    query, key, value, write, keep = (
        u.transpose(1, 2) for u in heads(p, x, "query", "key", "value", "input_gate", "forget_gate")
    )  # [B, H, T, size]
    state = [torch.zeros(B, HEADS, *shape, dtype=x.dtype) for shape in ((KEY, VALUE), (KEY, 1), (1, 1))]
    reads = []
    for t in range(T):
        now = [u[:, :, t : t + 1].clone() for u in (query, key, value, write, keep)]
        read, state = mlstm_step(*state, *now, eps=0.0)
        reads.append(read.flatten(1))
    return F.linear(x, p["output_gate.weight"], p["output_gate.bias"]).sigmoid() * torch.stack(reads)


def shm(p, x):
    module = hadamard(FEATURES, MEMORY, MEMORY).double()
    names = {"query": "query", "key": "key", "value": "value", "calibration": "vc_net", "rate": "eta"}
    theirs = {f"{name}.weight": p[f"{our}.weight"] for our, name in names.items()}
    theirs |= {"norm.weight": p["norm.weight"], "norm.bias": p["norm.bias"]}
    theirs["theta_matrix"] = torch.cat([p["theta"].unsqueeze(0), module.theta_matrix[1:].detach()])
    theirs |= {"out.weight": torch.eye(MEMORY, dtype=x.dtype), "out.bias": torch.zeros(MEMORY, dtype=x.dtype)}
    return torch.func.functional_call(module, theirs, (x.transpose(0, 1),)).transpose(0, 1)


fla, xlstm, hadamard_memory = sys.argv[1:]
attention = load(fla, "fla/ops/linear_attn/naive.py")["naive_recurrent_linear_attn"]
retention = load(fla, "fla/ops/retention/naive.py")["naive_retention"]
gated_attention = load(fla, "fla/ops/gla/naive.py")["naive_recurrent_gla"]
text = (Path(fla) / "fla/modules/rotary.py").read_text()
names = {"torch": torch}
exec(
    "from einops import rearrange, repeat\n" + text[text.index("def rotate_half") : text.index("@triton.autotune")],
    names,
)
rotate = names["rotary_embedding_ref"]
mlstm_step = load(xlstm, "xlstm/blocks/mlstm/backends.py")["recurrent_step_stabilized_simple"]
hadamard = load(hadamard_memory, "shm.py")["SHM"]


def affine(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size, FEATURES), f"{name}.bias": (size,)}


torch.manual_seed(0)
projections = affine("query", HEADS * KEY) | affine("key", HEADS * KEY) | affine("value", HEADS * VALUE)
gate = affine("gate", HEADS * VALUE) | {"norm.weight": (VALUE,), "norm.bias": (VALUE,)}
decay = {"decay.0.weight": (RANK, FEATURES), "decay.1.weight": (HEADS * KEY, RANK), "decay.1.bias": (HEADS * KEY,)}
gates = affine("input_gate", HEADS) | affine("forget_gate", HEADS) | affine("output_gate", HEADS * VALUE)
maps = {f"{name}.weight": (MEMORY, FEATURES) for name in ("query", "key", "value", "calibration")}
of_shm = maps | {"rate.weight": (1, FEATURES), "norm.weight": (FEATURES,), "norm.bias": (FEATURES,), "theta": (MEMORY,)}
for run, shapes in (
    (linear_attention, projections),
    (retnet, projections | gate),
    (gla, projections | gate | decay),
    (mlstm, projections | gates),
    (shm, of_shm),
):
    save(run.__name__, draw(shapes), torch.randn(T, B, FEATURES, dtype=torch.float64), run)
