"""Delta rules: the scan is the loop, and the cores are what their equations say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relmem.agents import make_core
from relmem.agents.cores.delta_scan import delta_scan, generalised_delta_scan
from tests.naive.delta import (
    naive_delta_net,
    naive_delta_rule,
    naive_gated_delta_net,
    naive_generalised_delta_rule,
    naive_rwkv7,
)
from tests.parity import assert_core_is, assert_same, moved
from tests.small_cores import assert_equal


def inputs(T, B, H, k, v, largest_write=2.0):
    """Inputs of a scan: query, key, value, write, log decay, state."""

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    key = torch.nn.functional.normalize(draw(T, B, H, k), dim=-1)
    write, log_decay = largest_write * torch.rand(T, B, H, dtype=torch.float64), -draw(T, B, H).square()
    parts = draw(T, B, H, k), key, draw(T, B, H, v), write, log_decay, draw(B, H, k, v)
    return [part.requires_grad_() for part in parts]


@pytest.mark.parametrize("T", [1, 63, 64, 65, 300])
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("decays", [True, False])
def test_the_scan_is_the_loop(T, p, decays):
    B, H, k, v = 1, 2, 3, 2
    query, key, value, write, log_decay, state = inputs(T, B, H, k, v)
    starts = torch.rand(T, B) < p
    got = delta_scan(query, key, value, write, log_decay if decays else None, state, starts)
    decay = log_decay.exp() if decays else torch.ones_like(write)
    expected = naive_delta_rule(query, key, value, write, decay, state, starts)
    assert_same(got, expected, [query, key, value, write, log_decay, state])


def generalised_inputs(T, B, H, k, v):
    """Inputs of a scan: query, key, value, erase, take, log decay, state."""
    query, key, value, _, _, state = inputs(T, B, H, k, v)
    erase = torch.nn.functional.normalize(torch.randn_like(query), dim=-1).detach().requires_grad_()
    take, log_decay = torch.rand_like(query), -0.61 * torch.rand_like(query)
    return [query, key, value, erase, take.requires_grad_(), log_decay.requires_grad_(), state]


@pytest.mark.parametrize("T", [1, 63, 64, 65, 300])
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_the_generalised_scan_is_the_loop(T, p):
    parts, starts = generalised_inputs(T, 1, 2, 3, 2), torch.rand(T, 1) < p
    assert_same(generalised_delta_scan(*parts, starts), naive_generalised_delta_rule(*parts, starts), parts)


def test_the_generalised_scan_is_exact_in_single_precision_at_the_largest_decay():
    *parts, _, state = (part.detach() for part in generalised_inputs(64, 1, 1, 3, 2))
    parts = [*parts, torch.full_like(parts[0], -0.61), state]
    starts = torch.zeros(64, 1, dtype=torch.bool)
    expected = naive_generalised_delta_rule(*parts, starts)
    got = generalised_delta_scan(*(part.float() for part in parts), starts)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net", "rwkv7"])
@pytest.mark.parametrize("junk", [float("inf"), float("nan")])
def test_what_has_overflowed_does_not_pass_a_reset_in_a_later_chunk(name, junk):
    core, x = moved(name, heads=2), torch.randn(70, 2, 5, dtype=torch.float64)
    starts = torch.zeros(70, 2, dtype=torch.bool)
    starts[66] = True
    clean = core.initial_state(2)
    got = core(x, type(clean)(*(torch.full_like(leaf, junk) for leaf in clean)), starts, since=66)
    assert_equal(got, core(x[66:], clean, torch.zeros_like(starts[66:])))


CORES = {"delta_net": naive_delta_net, "gated_delta_net": naive_gated_delta_net}


@pytest.mark.parametrize("name", CORES)
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_values_and_gradients_match_the_naive_version(name, data):
    sizes = {size: data.draw(st.integers(1, 4), size) for size in ("heads", "key_size", "value_size")}
    eigenvalues = data.draw(st.sampled_from(["positive", "signed"]), "eigenvalues")
    if name == "gated_delta_net":
        sizes["conv_size"] = data.draw(st.integers(1, 4), "conv_size")
    shape = {"steps": data.draw(st.integers(1, 7), "T"), "batch": data.draw(st.integers(1, 3), "B")}
    seed = data.draw(st.integers(0, 999), "seed")
    assert_core_is(CORES[name], name, seed=seed, eigenvalues=eigenvalues, **shape, **sizes)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_values_and_gradients_of_rwkv7_match_the_naive_version(data):
    sizes = {size: data.draw(st.integers(1, 4), size) for size in ("heads", "rank", "gate_rank")}
    shape = {"steps": data.draw(st.integers(1, 7), "T"), "batch": data.draw(st.integers(1, 3), "B")}
    # Of heads of width 1 or 2, the normalisation leaves no more than signs.
    sizes["head_size"] = data.draw(st.integers(3, 5), "head_size")
    assert_core_is(naive_rwkv7, "rwkv7", seed=data.draw(st.integers(0, 999), "seed"), **shape, **sizes)


def test_a_key_recalls_its_last_value():
    """The second value for a key replaces the first: nothing of it is left where β is 1."""
    _, key, value, _, _, state = inputs(2, 1, 1, 3, 2)
    key = key[:1].expand(2, 1, 1, 3)
    ones = torch.ones(2, 1, 1, dtype=torch.float64)
    y, _ = delta_scan(key, key, value, ones, None, 0 * state, torch.zeros(2, 1, dtype=torch.bool))
    torch.testing.assert_close(y, value)


def test_signed_eigenvalues_count_modulo_two():
    """With β = 2 and no value, a step turns the sign of what its key holds, and β = 0 leaves it."""
    ones = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.float64)
    key = torch.tensor([0.6, 0.8], dtype=torch.float64).expand(len(ones), 1, 1, 2)
    write, value = 2 * ones.view(-1, 1, 1), torch.zeros(len(ones), 1, 1, 1, dtype=torch.float64)
    y, _ = delta_scan(key, key, value, write, None, key[0].unsqueeze(3), torch.zeros(len(ones), 1, dtype=torch.bool))
    torch.testing.assert_close(y.flatten(), (-1) ** ones.cumsum(0))


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net"])
def test_unknown_eigenvalues_are_refused(name):
    with pytest.raises(ValueError, match="unknown eigenvalues 'sined': did you mean 'signed'"):
        make_core(name, 4, eigenvalues="sined")
