"""Product keys: against a search of all keys, and as a block before and behind a core."""

import pytest
import torch

from relmem.agents import StackedCore, check_core, make_core
from tests.golden import load
from tests.naive.memory_layer import naive_memory_layer
from tests.parity import assert_same, outputs_of
from tests.small_cores import double


@pytest.mark.parametrize("options", [{}, {"keys": 7, "top": 5, "heads": 3}, {"keys": 1, "top": 1}], ids=str)
def test_it_finds_the_best_of_all_keys_in_values_and_gradients(options):
    core = double("memory_layer", options)
    x = torch.randn(6, 3, core.input_size, dtype=torch.float64, requires_grad=True)
    y, _ = core(x, core.initial_state(3), torch.rand(6, 3) < 0.3)
    expected = outputs_of(core, naive_memory_layer(core, x.flatten(0, 1)).unflatten(0, (6, 3)))
    assert_same([y], [expected], [x, *core.parameters()])


def test_it_gives_the_numbers_of_a_public_implementation():
    golden = load("golden/memory_layer")
    heads, keys, _, key_size = golden["keys"].shape
    width = golden["values.weight"].shape[1]
    core = make_core("memory_layer", width, width=width, keys=keys, top=3, heads=heads, key_size=key_size).double()
    query = golden["to_queries.weight"].unflatten(0, (2, heads, key_size)).transpose(0, 1).flatten(0, 2)
    weights = {"query.weight": query, "query.bias": torch.zeros(len(query)), "values": golden["values.weight"]}
    weights |= {"keys": golden["keys"].transpose(1, 2)}
    weights |= {f"query_norm.{kind}": golden[f"norm.{kind}"] for kind in ("weight", "bias")}
    core.load_state_dict(weights)
    y, _ = core(golden["x"], core.initial_state(3), torch.zeros(7, 3, dtype=torch.bool))
    torch.testing.assert_close(y, golden["y"], rtol=0, atol=1e-10)


def test_it_stands_before_and_behind_a_core():
    before, behind = make_core("memory_layer", 5, width=4, keys=8, top=4), make_core("memory_layer", 3, keys=8, top=4)
    check_core(StackedCore({"before": before, "gru": make_core("gru", 4, hidden_size=3), "behind": behind}))


def test_more_cannot_be_looked_up_than_there_are_keys():
    with pytest.raises(ValueError, match="top must be at most keys, 8; got 16"):
        make_core("memory_layer", 3, keys=8)
