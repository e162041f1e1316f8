"""Traces of public implementations: the files below ``tests/data``, and the core that reproduces one.

The files in ``golden`` hold the parameters, an input ``x`` [T, B, F], weights ``w`` of the loss ``(y * w).sum()``, the
outputs ``y`` and all gradients, unless a test says otherwise; the script beside each says which code wrote it.
"""

from pathlib import Path

import numpy as np
import torch

from relmem.agents import make_core

DATA = Path(__file__).parent / "data"


def load(name):
    """The arrays of a file by name, such as ``golden/lru``."""
    with np.load(DATA / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def part(arrays, prefix):
    """The arrays whose names begin so, such as ``param/``, without that."""
    return {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}


def load_core(name, arrays, output_size=None, no_bias=None, **options):
    """The core with the parameters of a file, in double precision.

    :param no_bias: a bias that the public implementation does not have; ours is zero
    """
    core = make_core(name, arrays["x"].shape[-1], output_size, **options).double()
    parameters = part(arrays, "param/")
    if no_bias:
        parameters[no_bias] = torch.zeros_like(core.state_dict()[no_bias])
    core.load_state_dict(parameters)
    return core


def assert_trace(core, arrays, tolerance=1e-9):
    """The core has the outputs and the gradients of a file."""
    close = {"rtol": 0, "atol": tolerance}
    x = arrays["x"].requires_grad_()
    y, _ = core(x, core.initial_state(x.shape[1]), torch.zeros(x.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(y, arrays["y"], **close)
    (y * arrays["w"]).sum().backward()
    torch.testing.assert_close(x.grad, arrays["grad_x"], **close)
    parameters = dict(core.named_parameters())
    for key, gradient in part(arrays, "grad/").items():
        torch.testing.assert_close(parameters[key].grad, gradient, msg=lambda m, key=key: f"{key}: {m}", **close)
