"""Make gtrxl.npz: a layer of GTrXL over some steps, computed by parts of DI-engine.

Source: https://github.com/opendilab/DI-engine, ding/torch_utils/network/gtrxl.py (Apache License 2.0).
Run: python make_gtrxl.py FILE, where FILE is that file at commit COMMIT. It needs torch and numpy.

Its attention with relative positions and its gates are put together as in the paper. (Its own layer forms queries of
inputs that are not normalised, and its linear maps have biases, which are zero here.)
"""

import importlib.util
import sys
import types

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

COMMIT = "d0b21d065b2d80317cc16b28a95301be8871d950"  # of 2025-12-07
T, B, WIDTH, HEADS, WINDOW, HIDDEN = 6, 2, 8, 2, 3, 10


def source(path):
    """The module, without the rest of its package: of this it takes the linear map, which is torch's."""
    blocks = types.ModuleType("ding.torch_utils.network.nn_module")
    blocks.fc_block = lambda n_in, n_out, activation=None: nn.Linear(n_in, n_out)
    blocks.build_normalization, blocks.F = lambda kind: nn.LayerNorm, F
    for name in ("ding", "ding.torch_utils", "ding.torch_utils.network"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules[blocks.__name__] = blocks
    spec = importlib.util.spec_from_file_location("gtrxl", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    ding = source(sys.argv[1])
    attention = ding.AttentionXL(WIDTH, WIDTH // HEADS, HEADS, nn.Identity())
    gates = [ding.GRUGatingUnit(WIDTH, 2.0) for _ in range(2)]
    norms = [nn.LayerNorm(WIDTH) for _ in range(2)]
    mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))
    modules = nn.ModuleDict({"attention": attention, "gates": nn.ModuleList(gates), "mlp": mlp})
    modules["norms"] = nn.ModuleList(norms)
    with torch.no_grad():
        for parameter in modules.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for part in (attention.attention_kv, attention.attention_q, attention.project, attention.project_pos):
            part.bias.zero_()
        u, v = torch.randn(2, HEADS, WIDTH // HEADS)
        memory, x = torch.randn(WINDOW, B, WIDTH), torch.randn(T, B, WIDTH)
        place = ding.PositionalEmbedding(WIDTH)(torch.arange(WINDOW, -1, -1.0))
        outputs, seen = [], norms[0](memory)
        for x_t in x.split(1):
            now = norms[0](x_t)
            seen = torch.cat([seen, now])  # [w + 1, B, D]
            h = gates[0](x_t, F.relu(attention(now, place, seen, u, v)))
            outputs.append(gates[1](h, F.relu(mlp(norms[1](h)))))
            seen = seen[1:]
    arrays = {name: value.numpy() for name, value in modules.state_dict().items()}
    run = {"u": u, "v": v, "memory": memory, "x": x, "y": torch.cat(outputs)}
    np.savez_compressed("gtrxl.npz", **arrays, **{name: value.numpy() for name, value in run.items()})


if __name__ == "__main__":
    main()
