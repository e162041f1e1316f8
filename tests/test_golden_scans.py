"""Traces of public implementations of gated recurrences and diagonal scans, reproduced in double precision.

Each file holds the parameters, an input ``x`` [T, B, F], weights ``w`` of the loss ``(y * w).sum()``, the outputs ``y``
and all gradients; the script beside it says which code wrote it.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from relmem.agents import make_core

DATA = Path(__file__).parent / "data" / "golden"
OPTIONS = {
    "ffm": {"hidden_size": 6, "memory_size": 4, "context_size": 3},
    "lru": {"hidden_size": 6},
    "mamba": {"hidden_size": 8, "state_size": 3, "conv_size": 3, "rank": 2},
    "mamba2": {"hidden_size": 8, "heads": 2, "state_size": 3, "conv_size": 3},
    "rg_lru": {"hidden_size": 6, "conv_size": 3},
    "slstm": {"hidden_size": 8, "heads": 2},
    "min_gru": {"hidden_size": 6, "candidate": "positive"},
    "min_lstm": {"hidden_size": 6, "candidate": "positive"},
}
OUTPUT_SIZE = {"lru": 4, "mamba": 4, "mamba2": 4, "rg_lru": 5}
NO_BIAS = {"min_gru": "project.bias", "min_lstm": "project.bias", "mamba2": "out.bias"}  # there; ours is zero
close = {"rtol": 0, "atol": 1e-9}


@pytest.mark.parametrize("name", OPTIONS)
def test_values_and_gradients_are_those_of_a_public_implementation(name):
    with np.load(DATA / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    parameters = {key.removeprefix("param/"): a for key, a in arrays.items() if key.startswith("param/")}
    x, output_size = arrays["x"].requires_grad_(), OUTPUT_SIZE.get(name)
    core = make_core(name, x.shape[2], output_size, **OPTIONS[name]).double()
    missing = set(core.state_dict()) - set(parameters)
    for key in missing:
        assert key == NO_BIAS[name]
        parameters[key] = torch.zeros_like(core.state_dict()[key])
    core.load_state_dict(parameters)
    y, _ = core(x, core.initial_state(x.shape[1]), torch.zeros(x.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(y, arrays["y"], **close)
    (y * arrays["w"]).sum().backward()
    torch.testing.assert_close(x.grad, arrays["grad_x"], **close)
    for key, parameter in core.named_parameters():
        if key not in missing:
            torch.testing.assert_close(
                parameter.grad, arrays[f"grad/{key}"], msg=lambda m, key=key: f"{key}: {m}", **close
            )
