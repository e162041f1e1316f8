"""Cores that attend, and product keys: values and gradients of their naive versions."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relmem.agents.cores.attention import sinusoids
from tests.naive.gtrxl import naive_gtrxl
from tests.naive.lm2 import identity_bank, naive_lm2
from tests.naive.memory_layer import naive_memory_layer
from tests.naive.rmt import memory_tokens, naive_armt, naive_rmt
from tests.naive.rows import by_rows
from tests.parity import assert_naive, moved

NAIVE = {
    "gtrxl": partial(by_rows, naive_gtrxl),
    "lm2": partial(by_rows, naive_lm2, initial=identity_bank),
    "memory_layer": partial(by_rows, naive_memory_layer),
    "rmt": partial(by_rows, naive_rmt, initial=memory_tokens),
    "armt": partial(by_rows, naive_armt),
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
    return state


@pytest.mark.parametrize("name", NAIVE)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_values_and_gradients_match_the_naive_version(name, data):
    torch.manual_seed(data.draw(st.integers(0, 999), "seed"))
    input_size = data.draw(st.integers(1, 4), "input_size")
    output_size = data.draw(st.sampled_from([None, 3]), "output_size")
    steps, batch = data.draw(st.integers(1, 9), "steps"), data.draw(st.integers(1, 3), "batch")
    core = moved(name, input_size, output_size, **sizes(name, data))
    if name == "gtrxl":
        core.sinusoids = sinusoids(*(size - (not i) for i, size in enumerate(core.sinusoids.shape)))  # in float64
    x, starts = torch.randn(steps, batch, input_size, dtype=torch.float64), torch.rand(steps, batch) < 0.2
    assert_naive(core, NAIVE[name], x, any_state(core, batch), starts, tolerance=1e-8)
