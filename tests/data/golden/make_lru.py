"""Writes lru.npz: the linear recurrent unit of Gothos/LRU-pytorch, at commit e250d5a (MIT).

git clone https://github.com/Gothos/LRU-pytorch && python tests/data/golden/make_lru.py LRU-pytorch
"""

import sys

import torch
from golden_trace import draw, save
from torch.func import functional_call

sys.path.insert(0, sys.argv[1])
from LRU_pytorch.LRU import LRU

FEATURES, HIDDEN, OUTPUTS = 5, 6, 4


def run(p, x):
    C = p["C"].view(OUTPUTS, HIDDEN, 2)
    theirs = {"nu_log": p["nu"], "theta_log": p["theta"], "gamma_log": p["log_gamma"], "D": p["D"]}
    theirs |= {"B": torch.view_as_complex(p["B"].view(HIDDEN, 2, FEATURES).mT.contiguous())}
    theirs |= {"C": torch.complex(C[..., 0], -C[..., 1])}
    return functional_call(module, theirs, x.transpose(0, 1)).transpose(0, 1)


torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
module = LRU(FEATURES, OUTPUTS, HIDDEN)
shapes = {"nu": (HIDDEN,), "theta": (HIDDEN,), "log_gamma": (HIDDEN,)}
shapes |= {"B": (2 * HIDDEN, FEATURES), "C": (OUTPUTS, 2 * HIDDEN), "D": (OUTPUTS, FEATURES)}
save("lru", draw(shapes), torch.randn(12, 3, FEATURES), run)
