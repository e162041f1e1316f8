"""Writes rg_lru.npz: the recurrent block of google-deepmind/recurrentgemma, at commit 2efa84d (Apache 2.0), its PyTorch
version. It needs einops and jaxtyping.

    git clone https://github.com/google-deepmind/recurrentgemma
    python tests/data/golden/make_rg_lru.py recurrentgemma
"""

import functools
import importlib
import sys
import types
from pathlib import Path

import torch
from golden_trace import draw, save
from torch.func import functional_call

FEATURES, HIDDEN, CONV = 5, 6, 3


def load(repository: str):
    """The block's module alone: the package imports JAX."""
    for name in ("recurrentgemma", "recurrentgemma.torch"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(repository) / name.replace(".", "/"))]
        sys.modules[name] = package
    return importlib.import_module("recurrentgemma.torch.modules")


def run(p, x):
    gates = zip(("a_gate", "input_gate"), p["gate_map.weight"].chunk(2), p["gate_map.bias"].chunk(2), strict=True)
    theirs = {"linear_x.weight": p["project.weight"], "linear_x.bias": p["project.bias"]}
    theirs |= {"linear_y.weight": p["branch.weight"], "linear_y.bias": p["branch.bias"]}
    theirs |= {"linear_out.weight": p["out.weight"], "linear_out.bias": p["out.bias"]}
    theirs |= {"conv_1d.w": p["conv.weight"], "conv_1d.b": p["conv.bias"], "rg_lru.a_param": p["Lambda"]}
    for name, weight, bias in gates:
        theirs |= {f"rg_lru.{name}.w": weight.T.unsqueeze(0), f"rg_lru.{name}.b": bias.unsqueeze(0)}
    # Positions from 1 on, and so no beginning, at which it writes without the factor sqrt(1 - a²).
    cache = modules.RecurrentBlock.init_cache(x.shape[1], HIDDEN, torch.float64, conv1d_temporal_width=CONV)
    cache, outputs = cache._replace(rg_lru_state=cache.rg_lru_state.double()), []
    for t, x_t in enumerate(x, start=1):
        position = torch.full((x.shape[1], 1), t)
        y, cache = functional_call(module, theirs, (x_t.unsqueeze(1), position, cache))
        outputs.append(y.squeeze(1))
    return torch.stack(outputs)


modules = load(sys.argv[1])
modules.layers.rnn_scan = functools.partial(modules.layers.rnn_scan, acc_dtype=torch.float64)
torch.manual_seed(0)
module = modules.RecurrentBlock(FEATURES, 1, HIDDEN, CONV).double()
shapes = {f"{name}.weight": (HIDDEN, FEATURES) for name in ("project", "branch")}
shapes |= {f"{name}.bias": (HIDDEN,) for name in ("project", "branch")}
shapes |= {"conv.weight": (CONV, HIDDEN), "conv.bias": (HIDDEN,), "Lambda": (HIDDEN,)}
shapes |= {"gate_map.weight": (2 * HIDDEN, HIDDEN), "gate_map.bias": (2 * HIDDEN,)}
shapes |= {"out.weight": (FEATURES, HIDDEN), "out.bias": (FEATURES,)}
save("rg_lru", draw(shapes), torch.randn(12, 3, FEATURES, dtype=torch.float64), run)
