"""Writes ntm.npz: how a head of vlgiitr/ntm-pytorch, at commit 9bea8b1 (MIT), addresses its memory.

The rest differs: there, what is erased is one minus what is written, and a head reads before the next one writes.

git clone https://github.com/vlgiitr/ntm-pytorch && python tests/data/golden/make_ntm.py ntm-pytorch
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, sys.argv[1])
from ntm.modules.head import NTMHead
from ntm.modules.memory import NTMMemory

STEPS, BATCH, CELLS, WIDTH, CONTROLLER = 12, 1, 5, 4, 7  # it mixes the rows of larger batches

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
head, memory = NTMHead("r", CONTROLLER, WIDTH), NTMMemory(CELLS, WIDTH)
memory.memory = torch.randn(BATCH, CELLS, WIDTH)
states, weights = 2 * torch.randn(STEPS, BATCH, CONTROLLER), [torch.eye(CELLS)[:BATCH]]
for state in states:
    weights.append(head(state, weights[-1], memory)[0])
arrays = {
    "key": head.key_fc(states),
    "strength": F.softplus(head.key_strength_fc(states)),
    "gate": head.interpolation_gate_fc(states).sigmoid(),
    "shift": head.shift_weighting_fc(states).softmax(dim=2).flip(2),  # theirs begins with a step forward
    "sharpness": 1 + F.softplus(head.sharpen_factor_fc(states)),
    "memory": memory.memory,
    "weights": torch.stack(weights),
}
path = Path(__file__).parent / "ntm.npz"
np.savez_compressed(path, **{name: array.detach().numpy() for name, array in arrays.items()})
