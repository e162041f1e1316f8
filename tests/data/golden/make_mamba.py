"""Writes mamba.npz: the Mamba block of johnma2006/mamba-minimal, at commit 03de542 (Apache 2.0). It needs
einops.

    git clone https://github.com/johnma2006/mamba-minimal && python tests/data/golden/make_mamba.py mamba-minimal
"""

import sys

import torch
from golden_trace import draw, save
from torch.func import functional_call

sys.path.insert(0, sys.argv[1])
from model import MambaBlock, ModelArgs

FEATURES, STATES, CONV, RANK = 4, 3, 3, 2
CHANNELS = 2 * FEATURES


def run(p, x):
    theirs = {"in_proj.weight": p["project.weight"], "x_proj.weight": p["select.weight"], "D": p["D"]}
    theirs |= {"conv1d.weight": p["conv.weight"].T.unsqueeze(1), "conv1d.bias": p["conv.bias"]}
    theirs |= {"dt_proj.weight": p["step_size.weight"], "dt_proj.bias": p["step_size.bias"], "A_log": p["log_A"].T}
    theirs |= {"out_proj.weight": p["out.weight"], "out_proj.bias": p["out.bias"]}
    return functional_call(module, theirs, x.transpose(0, 1)).transpose(0, 1)


torch.Tensor.float = torch.Tensor.double  # it computes in single precision what it takes for critical
torch.manual_seed(0)
sizes = {"d_state": STATES, "expand": 2, "dt_rank": RANK, "d_conv": CONV, "bias": True}
module = MambaBlock(ModelArgs(d_model=FEATURES, n_layer=1, vocab_size=8, **sizes)).double()
module.in_proj.register_parameter("bias", None)
shapes = {"project.weight": (2 * CHANNELS, FEATURES), "conv.weight": (CONV, CHANNELS), "conv.bias": (CHANNELS,)}
shapes |= {"select.weight": (RANK + 2 * STATES, CHANNELS), "step_size.weight": (CHANNELS, RANK)}
shapes |= {"step_size.bias": (CHANNELS,), "log_A": (STATES, CHANNELS), "D": (CHANNELS,)}
shapes |= {"out.weight": (FEATURES, CHANNELS), "out.bias": (FEATURES,)}
save("mamba", draw(shapes), torch.randn(12, 3, FEATURES, dtype=torch.float64), run)
