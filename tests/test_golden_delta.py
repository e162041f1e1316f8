"""Traces of public implementations of delta rules, test-time learners and external memories, reproduced."""

import pytest
import torch

from relmem.agents import make_core
from relmem.agents.cores.delta_scan import delta_scan
from relmem.agents.cores.dnc import DNCCore, Interface
from relmem.agents.cores.ntm import Address, address
from tests.golden import assert_trace, load, load_core


@pytest.mark.parametrize("rule", ["plain", "gated"])
def test_delta_rules_are_those_of_flash_linear_attention(rule):
    a = load("golden/delta_rule")
    parts = (a["query"], a["key"], a["value"], a["write"], a["log_decay"] if rule == "gated" else None)
    y, end = delta_scan(*parts, a["state"], torch.zeros(a["query"].shape[:2], dtype=torch.bool))
    torch.testing.assert_close(y, a[f"y_{rule}"], rtol=1e-4, atol=1e-5)  # in single precision
    torch.testing.assert_close(end, a[f"end_{rule}"], rtol=1e-4, atol=1e-5)


def test_time_mixing_is_that_of_the_numpy_reference_of_rwkv7():
    a = load("golden/rwkv7")
    core = load_core("rwkv7", a, a["y"].shape[1], "out.bias", heads=2, head_size=4, rank=3, gate_rank=2)
    y, end = core(a["x"].unsqueeze(1), core.initial_state(1), torch.zeros(len(a["x"]), 1, dtype=torch.bool))
    torch.testing.assert_close(y.squeeze(1), a["y"], rtol=1e-5, atol=1e-5)  # the length of keys is guarded otherwise
    torch.testing.assert_close(end.memory.squeeze(0), a["memory"], rtol=1e-5, atol=1e-5)


CORES = {
    "tpr": {"entity_size": 4, "relation_size": 3, "hidden_size": 6, "unit_vectors": False},
    "titans": {"memory_size": 4, "hidden_size": 8, "largest_surprise": None, "forget_to": "zero"},
}


@pytest.mark.parametrize("name", CORES)
def test_values_and_gradients_are_those_of_a_public_implementation(name):
    arrays = load(f"golden/{name}")
    core = load_core(name, arrays, **CORES[name])
    if name == "tpr":
        for norm in core.norms:
            norm.eps = 1e-12
    assert_trace(
        core, arrays, tolerance=1e-4 if name == "titans" else 1e-9
    )  # Titans guards the length of keys otherwise


def test_the_memory_of_a_dnc_is_that_of_pytorch_dnc():
    a = load("golden/dnc")
    batch, cells, width = a["first_memory"].shape
    heads = a["read_keys"].shape[2]
    core = make_core("dnc", 1, controller_size=1, cells=cells, cell_size=width, read_heads=heads).double()
    state = core.initial_state(batch)._replace(memory=a["first_memory"], usage=a["first_usage"])
    for t in range(len(a["reads"])):
        state = DNCCore.access(Interface(*(a[name][t] for name in Interface._fields)), state)
        torch.testing.assert_close(state.read_weights @ state.memory, a["reads"][t], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state.usage, a["usages"][t], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state.memory, a["memory"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state.link, a["link"], rtol=1e-4, atol=1e-5)


def test_heads_of_an_ntm_address_as_those_of_ntm_pytorch():
    a = load("golden/ntm")
    for t in range(len(a["key"])):
        numbers = (a[name][t].unsqueeze(1) for name in ("key", "strength", "gate", "shift", "sharpness"))
        key, strength, gate, shift, sharpness = numbers
        where = Address(key, strength.squeeze(2), gate.squeeze(2), shift, sharpness.squeeze(2))
        weights = address(where, a["memory"], a["weights"][t].unsqueeze(1))
        torch.testing.assert_close(weights.squeeze(1), a["weights"][t + 1], rtol=1e-5, atol=1e-6)
