"""Writes rwkv7.npz: the time mixing of RWKV-v7/rwkv_v7_numpy.py of BlinkDL/RWKV-LM, at commit 524481d (Apache-2.0).

python tests/data/golden/make_rwkv7.py rwkv_v7_numpy.py
"""

import sys
from pathlib import Path

import numpy as np
import torch
from golden_trace import draw

HEADS, SIZE, RANK, GATE_RANK, STEPS = 2, 4, 3, 2, 8
WIDTH = HEADS * SIZE  # of the input too, in a layer of RWKV

torch.manual_seed(0)
shapes = {name: (WIDTH, WIDTH) for name in ("receptance.weight", "key.weight", "value.weight", "out.weight")}
shapes |= {"mix": (6, WIDTH), "bonus": (HEADS, SIZE), "gate_in.weight": (GATE_RANK, WIDTH)}
shapes |= {"gate_out.weight": (WIDTH, GATE_RANK)}
shapes |= {f"{name}_in.weight": (RANK, WIDTH) for name in ("decay", "take")}
shapes |= {f"{name}_out.weight": (WIDTH, RANK) for name in ("decay", "take")}
vectors = ("decay_out.bias", "take_out.bias", "erase_scale", "take_scale", "norm.weight", "norm.bias")
shapes |= {name: (WIDTH,) for name in vectors}
parameters = {name: value.numpy() for name, value in draw(shapes, scale=1.0).items()}
p = parameters

# Without what loads a model and checks the code with it.
source = Path(sys.argv[1]).read_text().split("def channel_mixing")[0]
namespace = {"N_HEAD": HEADS, "HEAD_SIZE": SIZE}
exec(compile(source, sys.argv[1], "exec"), namespace)
mix_r, mix_w, mix_k, mix_v, mix_a, mix_g = p["mix"]
theirs = [
    *(mix_r, mix_w, mix_k, mix_v, mix_a, mix_g, p["decay_out.bias"], p["bonus"].flatten()),
    *(p["decay_in.weight"].T, p["decay_out.weight"].T),
    *(p["take_in.weight"].T, p["take_out.weight"].T, p["take_out.bias"]),
    *(p["gate_in.weight"].T, p["gate_out.weight"].T),
    *(p["erase_scale"], p["take_scale"]),
    *(
        p[name]
        for name in ("receptance.weight", "key.weight", "value.weight", "out.weight", "norm.weight", "norm.bias")
    ),
]
x = np.random.default_rng(0).standard_normal((STEPS, WIDTH))
memory, last, outputs = np.zeros((HEADS, SIZE, SIZE)), np.zeros(WIDTH), []
for x_t in x:
    y, _, last, memory = namespace["time_mixing"](x_t, None, last, memory, theirs)
    outputs.append(y)
arrays = {"x": x, "y": np.stack(outputs), "memory": memory.swapaxes(1, 2)}  # theirs is values by keys
arrays |= {f"param/{name}": value for name, value in parameters.items()}
np.savez_compressed(Path(__file__).parent / "rwkv7.npz", **arrays)
