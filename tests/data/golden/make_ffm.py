"""Writes ffm.npz: the fast and forgetful memory of proroklab/ffm, at commit b3f94d2 (MIT).

git clone https://github.com/proroklab/ffm && python tests/data/golden/make_ffm.py ffm
"""

import sys
from pathlib import Path

import torch
from golden_trace import draw, save
from torch.func import functional_call

sys.path.insert(0, str(Path(sys.argv[1]) / "standalone"))
from ffm.ffm import FFM

FEATURES, HIDDEN, TRACES, FREQUENCIES = 5, 6, 4, 3


def run(p, x):
    """Step by step, which is exact; for sequences, powers of γ are divided by each other, and rounded to complex64."""
    order = torch.cat([part for part in split(torch.arange(len(p["project.bias"])))])
    theirs = {"pre.weight": p["project.weight"][order], "pre.bias": p["project.bias"][order]}
    theirs |= {"ffa.a": -p["alpha"].abs().view(1, 1, -1), "ffa.b": p["omega"].view(1, 1, -1)}
    theirs |= {"mix.weight": p["mix.weight"], "mix.bias": p["mix.bias"]}
    trace, outputs = torch.zeros(x.shape[1], 1, TRACES, FREQUENCIES, dtype=torch.complex128), []
    for x_t in x:
        y, trace = functional_call(module, theirs, (x_t.unsqueeze(1), trace))
        outputs.append(y.squeeze(1))
    return torch.stack(outputs)


def split(rows):
    """Our rows of the first map in their order: values, what passes by the memory, input gate, output gate."""
    values, take, gate, skip = rows.split([TRACES, TRACES, HIDDEN, HIDDEN])
    return values, skip, take, gate


torch.manual_seed(0)
module = FFM(FEATURES, 0, TRACES, FREQUENCIES, HIDDEN).double()
shapes = {"project.weight": (2 * TRACES + 2 * HIDDEN, FEATURES), "project.bias": (2 * TRACES + 2 * HIDDEN,)}
shapes |= {"mix.weight": (HIDDEN, 2 * TRACES * FREQUENCIES), "mix.bias": (HIDDEN,)}
parameters = draw(shapes) | {"alpha": 0.6 * torch.rand(TRACES).double(), "omega": 2 * torch.randn(FREQUENCIES).double()}
save("ffm", parameters, torch.randn(12, 3, FEATURES, dtype=torch.float64), run)
