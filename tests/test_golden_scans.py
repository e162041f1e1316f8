"""Traces of public implementations of gated recurrences and diagonal scans, reproduced in double precision."""

import pytest

from tests.golden import assert_trace, load, load_core

OPTIONS = {
    "ffm": {"hidden_size": 6, "memory_size": 4, "context_size": 3},
    "lru": {"hidden_size": 6},
    "mamba": {"hidden_size": 8, "memory_size": 3, "conv_size": 3, "rank": 2},
    "mamba2": {"hidden_size": 8, "heads": 2, "key_size": 3, "conv_size": 3},
    "rg_lru": {"hidden_size": 6, "conv_size": 3},
    "slstm": {"hidden_size": 8, "heads": 2},
    "min_gru": {"hidden_size": 6, "candidate": "positive"},
    "min_lstm": {"hidden_size": 6, "candidate": "positive"},
}
OUTPUT_SIZE = {"lru": 4, "mamba": 4, "mamba2": 4, "rg_lru": 5}
NO_BIAS = {"min_gru": "project.bias", "min_lstm": "project.bias", "mamba2": "out.bias"}  # there; ours is zero


@pytest.mark.parametrize("name", OPTIONS)
def test_values_and_gradients_are_those_of_a_public_implementation(name):
    arrays = load(f"golden/{name}")
    core = load_core(name, arrays, OUTPUT_SIZE.get(name), NO_BIAS.get(name), **OPTIONS[name])
    assert_trace(core, arrays)
