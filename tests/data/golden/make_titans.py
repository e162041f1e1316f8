"""Writes titans.npz: the neural memory of titans-pytorch 0.5.5 (MIT), at settings that are the equations of the paper.

pip install titans-pytorch==0.5.5 && python tests/data/golden/make_titans.py
"""

import torch
from golden_trace import draw, save
from titans_pytorch import NeuralMemory
from torch.func import functional_call

WIDTH, HIDDEN, STEPS, BATCH = 4, 8, 5, 2  # of the input too


def run(p, x):
    query, key, value = p["qkv.weight"].chunk(3)
    rate, momentum, decay = zip(p["gates_of_input.weight"].split(1), p["gates_of_input.bias"].split(1), strict=True)
    theirs = {"to_queries.0.weight": query, "to_keys.0.weight": key, "to_values.0.weight": value}
    for name, (weight, bias) in {"adaptive_step": rate, "momentum": momentum, "decay_factor": decay}.items():
        theirs |= {f"to_{name}.0.weight": weight, f"to_{name}.0.bias": bias}
    theirs |= {f"memory_model_parameters.{i}": p[f"initial_weight{i + 1}"].T.unsqueeze(0) for i in (0, 1)}
    state, outputs = None, []
    for x_t in x:  # one at a time, for a gradient at the memory of the step before
        y, state = functional_call(module, theirs, (x_t.unsqueeze(1),), {"state": state})
        outputs.append(y.squeeze(1))
    return torch.stack(outputs)


torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
module = NeuralMemory(
    WIDTH,
    chunk_size=1,
    batch_size=1,
    pre_rmsnorm=False,
    qk_rmsnorm=True,
    activation=torch.nn.SiLU(),
    mem_model_norm_add_residual=False,
    default_model_kwargs={"depth": 2, "expansion_factor": HIDDEN / WIDTH},
)
for norm in (module.q_norm, module.k_norm):
    norm.gamma.data.fill_(WIDTH**-0.5 - 1)  # of length 1, instead of a root mean square of 1
shapes = {"qkv.weight": (3 * WIDTH, WIDTH), "gates_of_input.weight": (3, WIDTH), "gates_of_input.bias": (3,)}
shapes |= {"initial_weight1": (HIDDEN, WIDTH), "initial_weight2": (WIDTH, HIDDEN)}
save("titans", draw(shapes, scale=1.0), torch.randn(STEPS, BATCH, WIDTH), run)
