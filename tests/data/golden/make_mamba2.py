"""Writes mamba2.npz: the Mamba-2 block of tommyip/mamba2-minimal, at commit 4f44137 (Apache 2.0), with chunks of
four steps. It needs einops.

    git clone https://github.com/tommyip/mamba2-minimal && python tests/data/golden/make_mamba2.py mamba2-minimal
"""

import sys

import torch
from golden_trace import draw, save
from torch.func import functional_call

sys.path.insert(0, sys.argv[1])
from mamba2 import Mamba2, Mamba2Config

FEATURES, STATES, CONV, HEADS = 4, 3, 3, 2
CHANNELS = 2 * FEATURES
CONVOLVED = CHANNELS + 2 * STATES


def run(p, x):
    theirs = {"in_proj.weight": p["project.weight"], "norm.weight": p["norm.weight"], "D": p["D"]}
    theirs |= {"conv1d.weight": p["conv.weight"].T.unsqueeze(1), "conv1d.bias": p["conv.bias"]}
    theirs |= {"dt_bias": p["step_size_bias"], "A_log": p["log_A"], "out_proj.weight": p["out.weight"]}
    return functional_call(module, theirs, x.transpose(0, 1))[0].transpose(0, 1)


torch.manual_seed(0)
sizes = {"d_state": STATES, "d_conv": CONV, "headdim": CHANNELS // HEADS, "chunk_size": 4}
module = Mamba2(Mamba2Config(d_model=FEATURES, **sizes)).double()
shapes = {"project.weight": (CHANNELS + CONVOLVED + HEADS, FEATURES), "conv.weight": (CONV, CONVOLVED)}
shapes |= {"conv.bias": (CONVOLVED,), "step_size_bias": (HEADS,), "log_A": (HEADS,), "D": (HEADS,)}
shapes |= {"norm.weight": (CHANNELS,), "out.weight": (FEATURES, CHANNELS)}
save("mamba2", draw(shapes), torch.randn(12, 3, FEATURES, dtype=torch.float64), run)
