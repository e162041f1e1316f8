"""Writes dnc.npz: the memory of ixaxaar/pytorch-dnc, at commit cf6f682 (MIT).

Its controller is left out, since it never gets to see what was read after the first step.

git clone https://github.com/ixaxaar/pytorch-dnc && python tests/data/golden/make_dnc.py pytorch-dnc
"""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

STEPS, BATCH, CELLS, WIDTH, HEADS = 6, 2, 5, 3, 2

package = types.ModuleType("dnc")  # without what the package imports besides
package.__path__ = [str(Path(sys.argv[1]) / "dnc")]
sys.modules["dnc"] = package
Memory = importlib.import_module("dnc.memory").Memory

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
sizes = [HEADS * WIDTH, HEADS, WIDTH, 1, WIDTH, WIDTH, HEADS, 1, 1, 3 * HEADS]
memory = Memory(sum(sizes), CELLS, WIDTH, HEADS, independent_linears=False).double()
memory.interface_weights.weight.data = torch.eye(sum(sizes))  # so that its input is the interface
memory.interface_weights.bias.data.zero_()

hidden = {name: value.double() for name, value in memory.new(BATCH).items()}
hidden["memory"] = torch.randn_like(hidden["memory"])  # the cosine of cells near zero differs by how it is guarded
hidden["usage_vector"] = torch.rand_like(hidden["usage_vector"])  # the order of cells of the same usage is arbitrary
xi, reads, usages = torch.randn(STEPS, BATCH, sum(sizes)), [], []
first_memory, first_usage = hidden["memory"], hidden["usage_vector"]
for xi_t in xi:
    read, hidden = memory(xi_t, hidden)
    reads.append(read)
    usages.append(hidden["usage_vector"])

keys, strengths, write_key, write_strength, erase, write, free, allocate, gate, modes = xi.split(sizes, dim=2)
modes = modes.unflatten(2, (HEADS, 3)).softmax(dim=3)[..., [0, 2, 1]]  # theirs: backward, forward, by content
arrays = {
    "read_keys": keys.tanh().unflatten(2, (HEADS, WIDTH)),
    "read_strengths": F.softplus(strengths),
    "write_key": write_key.tanh(),
    "write_strength": F.softplus(write_strength),
    "erase": erase.sigmoid(),
    "write": write.tanh(),
    "free_gates": free.sigmoid(),
    "allocation_gate": allocate.sigmoid(),
    "write_gate": gate.sigmoid(),
    "read_modes": modes,
    "first_memory": first_memory,
    "first_usage": first_usage,
    "reads": torch.stack(reads),
    "usages": torch.stack(usages),
    "memory": hidden["memory"],
    "link": hidden["link_matrix"].squeeze(1),
}
path = Path(__file__).parent / "dnc.npz"
np.savez_compressed(path, **{name: array.detach().numpy() for name, array in arrays.items()})
