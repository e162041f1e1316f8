"""Cores that attend, and product keys: values and gradients of their naive versions."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relmem.agents import make_core
from relmem.agents.cores.attention import sinusoids
from tests.naive.gtrxl import naive_gtrxl
from tests.naive.lm2 import identity_bank, naive_lm2
from tests.naive.memory_layer import naive_memory_layer
from tests.naive.rmt import memory_tokens, naive_armt, naive_rmt
from tests.naive.windows import by_rows, zeros

NAIVE = {
    "gtrxl": (naive_gtrxl, zeros),
    "lm2": (naive_lm2, identity_bank),
    "memory_layer": (naive_memory_layer, zeros),
    "rmt": (naive_rmt, memory_tokens),
    "armt": (naive_armt, zeros),
}


def sizes(name, data):
    """Options of a small core."""

    def draw(largest, option):
        return data.draw(st.integers(1, largest), option)

    if name == "memory_layer":
        keys = draw(5, "keys")
        options = {"keys": keys, "top": draw(keys, "top"), "heads": draw(3, "heads"), "key_size": draw(4, "key_size")}
        return options | {"hidden_size": draw(5, "hidden_size")}
    heads = draw(3, "heads")
    options = {"heads": heads, "hidden_size": heads * draw(3, "head_size")}
    if name == "gtrxl":
        gate = data.draw(st.sampled_from(["gru", "none"]), "gate")
        return options | {"window": draw(9, "window"), "mlp_size": draw(4, "mlp_size"), "gate": gate}
    if name == "lm2":
        return options | {"slots": draw(6, "slots")}
    options |= {option: draw(3, option) for option in ("segment", "tokens", "layers")}
    return options | ({"key_size": draw(3, "key_size")} if name == "armt" else {})


def any_state(core, batch):
    """Random leaves, but for counts and for what stays positive."""
    state = type(core.initial_state(1))(
        *(torch.randn(batch, *shape, dtype=torch.float64) for shape in core.state_spec.values())
    )
    if "filled" in core.state_spec:  # a window fills from its newest row on
        state = state._replace(filled=(torch.rand(state.filled.shape) < 0.5).double().sort(dim=1).values)
    if "length" in core.state_spec:
        state = state._replace(length=torch.randint(core.segment, (batch, 1)).double())
    if "normaliser" in core.state_spec:
        state = state._replace(normaliser=state.normaliser.abs())
    return type(state)(*(leaf.requires_grad_() for leaf in state))


@pytest.mark.parametrize("name", NAIVE)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_values_and_gradients_match_the_naive_version(name, data):
    torch.manual_seed(data.draw(st.integers(0, 999), "seed"))
    input_size, output_size = (
        data.draw(st.integers(1, 4), "input_size"),
        data.draw(st.sampled_from([None, 3]), "output"),
    )
    steps, batch = data.draw(st.integers(1, 9), "steps"), data.draw(st.integers(1, 3), "batch")
    core = make_core(name, input_size, output_size, **sizes(name, data)).double()
    if name == "gtrxl":
        core.sinusoids = sinusoids(*(size - (not i) for i, size in enumerate(core.sinusoids.shape)))  # in float64
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, starts = (
        torch.randn(steps, batch, input_size, dtype=torch.float64).requires_grad_(),
        torch.rand(steps, batch) < 0.2,
    )
    state = any_state(core, batch)
    step, initial = NAIVE[name]
    initial = partial(initial, core=core) if initial is memory_tokens else initial
    y, end = core(x, state, starts)
    expected_y, expected_end = by_rows(step, initial, core, x, state, starts)
    got, expected = [y, *end], [expected_y, *expected_end]
    weights, sources = [torch.randn_like(tensor) for tensor in expected], [x, *state, *core.parameters()]
    for tensors in (got, expected):
        total = sum((tensor * weight).sum() for tensor, weight in zip(tensors, weights, strict=True))
        tensors += torch.autograd.grad(total, sources, allow_unused=True, materialize_grads=True)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)
