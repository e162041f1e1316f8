"""Writes slstm.npz: the vanilla backend of the sLSTM cell of NX-AI/xlstm, at commit 032a6fb (Apache 2.0).

git clone https://github.com/NX-AI/xlstm && python tests/data/golden/make_slstm.py xlstm
"""

import importlib.util
import sys
from pathlib import Path

import torch
from golden_trace import draw, save

FEATURES, HEADS, SIZE = 5, 2, 4  # per head
OURS = ("z", "i", "f", "o")
THEIRS = ("i", "f", "z", "o")


def load(repository: str):
    """The two files of the backend alone: the package around them imports much that they do not need."""
    folder = Path(repository) / "xlstm/blocks/slstm/src/vanilla"
    spec = importlib.util.spec_from_file_location(
        "vanilla", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["vanilla"] = module
    spec.loader.exec_module(module)
    return module


def run(p, x):
    order = [OURS.index(gate) for gate in THEIRS]
    weight = p["project.weight"].view(HEADS, 4, SIZE, FEATURES)[:, order].transpose(0, 1).reshape(-1, FEATURES)
    bias = p["project.bias"].view(HEADS, 4, SIZE)[:, order].transpose(0, 1).reshape(-1)
    recurrent = p["recurrent"].view(HEADS, SIZE, 4, SIZE)[:, :, order].permute(0, 2, 3, 1).reshape(HEADS, -1, SIZE)
    states = torch.zeros(4, x.shape[1], HEADS * SIZE, dtype=x.dtype)
    pointwise = vanilla.slstm_pointwise_function_registry["slstm"]
    Wx, hidden, y = x @ weight.T, states, []
    for t in range(len(x)):  # step by step: the whole sequence writes in place what a gradient needs
        _, hidden, _ = vanilla.slstm_forward(Wx[t : t + 1], hidden, recurrent, bias, pointwise)
        y.append(hidden[0])
    return torch.stack(y)


vanilla = load(sys.argv[1])
torch.manual_seed(0)
cells = HEADS * SIZE
shapes = {"project.weight": (4 * cells, FEATURES), "project.bias": (4 * cells,), "recurrent": (HEADS, SIZE, 4 * SIZE)}
save("slstm", draw(shapes), torch.randn(12, 3, FEATURES, dtype=torch.float64), run)
