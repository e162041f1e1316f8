"""Traces of the released implementations, values and gradients, reproduced in double precision.

Each file in ``tests/data`` holds the parameters, an input ``x`` [T, B, F], weights ``w`` of the loss ``(output *
w).sum()``, what the released code computed from them, and its gradients.
"""

import pytest
import torch

from relmem.agents import make_core
from tests import golden

STM = {
    "stm_released": {"preset": "released"},
    "stm_released_ungated": {"preset": "released", "gated": False},
    "stm_released_rl": {"preset": "released_rl"},
}
RMC = {
    "rmc_l0sg_unit": {"gate": "unit", "slots": 3, "heads": 2, "head_size": 4},
    "rmc_l0sg_memory": {"gate": "memory", "slots": 4, "heads": 3, "head_size": 3, "blocks": 2, "mlp_layers": 3},
}
close = {"rtol": 0, "atol": 1e-9}


def load(name):
    arrays = golden.load(name)
    return arrays, golden.part(arrays, "param/"), golden.part(arrays, "grad/")


def assert_gradients(core, gradients):
    """The same gradients, and none where the released code has none."""
    for name, parameter in core.named_parameters():
        if name in gradients:
            torch.testing.assert_close(
                parameter.grad, gradients[name], msg=lambda m, name=name: f"{name}: {m}", **close
            )
        else:
            assert parameter.grad is None, name


def stm(name):
    arrays, parameters, gradients = load(name)
    n, d, _ = parameters["initial_relation"].shape
    relation_size = len(parameters["relation_readout.bias"])
    sizes = {"queries": n, "item_size": d, "relation_size": relation_size}
    core = make_core("stm", arrays["x"].shape[2], 5, **sizes, **STM[name]).double()
    core.load_state_dict(parameters)
    return core, arrays, gradients


@pytest.mark.parametrize("name", STM)
def test_stm_values_and_gradients(name):
    core, arrays, gradients = stm(name)
    x = arrays["x"]
    y, _ = core(x, core.initial_state(x.shape[1]), torch.zeros(x.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(y, arrays["output"], **close)
    (y * arrays["w"]).sum().backward()
    assert_gradients(core, gradients)


@pytest.mark.parametrize("name", STM)
def test_stm_memories_and_read_out_after_every_step(name):
    core, arrays, _ = stm(name)
    readouts = []
    core.mlp.register_forward_pre_hook(lambda _, args: readouts.append(args[0]))
    state = core.initial_state(arrays["x"].shape[1])
    for t, x in enumerate(arrays["x"]):
        y, state = core.step(x, state)
        torch.testing.assert_close(y, arrays["output"][t], **close)
        torch.testing.assert_close(readouts[t], arrays["readout"][t], **close)
        torch.testing.assert_close(state.item, arrays["item"][t], **close)
        if "relation" in core.state_spec:
            torch.testing.assert_close(state.relation, arrays["relation"][t], **close)


@pytest.mark.parametrize("name", RMC)
def test_rmc_values_and_gradients(name):
    arrays, parameters, gradients = load(name)
    x = arrays["x"]
    core = make_core("rmc", x.shape[2], preset="l0sg", **RMC[name]).double()
    core.load_state_dict(parameters)
    y, _ = core(x, core.initial_state(x.shape[1]), torch.zeros(x.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(y, arrays["output"], **close)
    (y * arrays["w"]).sum().backward()
    assert_gradients(core, gradients)
