"""Product keys: against a public implementation, and before and behind a core; a search of all keys is in
test_windows.py."""

import pytest
import torch

from relmem.agents import StackedCore, check_core, make_core
from tests.golden import load


def test_it_gives_the_numbers_of_a_public_implementation():
    golden = load("golden/memory_layer")
    heads, keys, _, key_size = golden["keys"].shape
    width = golden["values.weight"].shape[1]
    options = {"hidden_size": width, "keys": keys, "top": 3, "heads": heads, "key_size": key_size}
    core = make_core("memory_layer", width, **options).double()
    query = golden["to_queries.weight"].unflatten(0, (2, heads, key_size)).transpose(0, 1).flatten(0, 2)
    weights = {"query.weight": query, "query.bias": torch.zeros(len(query)), "values": golden["values.weight"]}
    weights |= {"keys": golden["keys"].transpose(1, 2)}
    weights |= {f"query_norm.{kind}": golden[f"norm.{kind}"] for kind in ("weight", "bias")}
    core.load_state_dict(weights)
    y, _ = core(golden["x"], core.initial_state(3), torch.zeros(7, 3, dtype=torch.bool))
    torch.testing.assert_close(y, golden["y"], rtol=0, atol=1e-10)


def test_it_stands_before_and_behind_a_core():
    options = {"keys": 8, "top": 4}
    before = make_core("memory_layer", 5, hidden_size=4, **options)
    gru, behind = make_core("gru", 4, hidden_size=3), make_core("memory_layer", 3, **options)
    check_core(StackedCore({"before": before, "gru": gru, "behind": behind}))


def test_more_cannot_be_looked_up_than_there_are_keys():
    with pytest.raises(ValueError, match="top must be at most keys, 8; got 16"):
        make_core("memory_layer", 3, keys=8)
