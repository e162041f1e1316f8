"""Writes min_gru.npz and min_lstm.npz: minGRU and minLSTM of lucidrains/minGRU-pytorch, at commit 38b26e1 (MIT), which
computes in log space.

    git clone https://github.com/lucidrains/minGRU-pytorch && python tests/data/golden/make_min_rnn.py minGRU-pytorch
"""

import sys

import torch
from golden_trace import draw, save
from torch.func import functional_call

sys.path.insert(0, sys.argv[1])
from minGRU_pytorch.minGRU import minGRU
from minGRU_pytorch.minLSTM import minLSTM

WIDTH = 6  # of inputs too, as there


def run(module, name):
    return lambda p, x: functional_call(module, {name: p["project.weight"]}, x.transpose(0, 1)).transpose(0, 1)


torch.manual_seed(0)
for name, module, maps in (("min_gru", minGRU(WIDTH), 2), ("min_lstm", minLSTM(WIDTH), 3)):
    parameters = draw({"project.weight": (maps * WIDTH, WIDTH)})
    x = torch.randn(12, 3, WIDTH, dtype=torch.float64)
    save(name, parameters, x, run(module, next(iter(dict(module.named_parameters())))))
