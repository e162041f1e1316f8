"""Delta rules: the scan is the loop, and the cores are what their equations say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relmem.agents import make_core
from relmem.agents.cores.delta_scan import delta_scan
from tests.naive.delta import naive_delta_net, naive_delta_rule, naive_gated_delta_net


def assert_same(got, expected, sources, tolerance=1e-9):
    """The same tensors, and the same gradients."""
    weights = [torch.randn_like(tensor) for tensor in expected]
    gradients = []
    for tensors in (got, expected):
        total = sum((tensor * weight).sum() for tensor, weight in zip(tensors, weights, strict=True))
        gradients.append(torch.autograd.grad(total, sources, allow_unused=True, materialize_grads=True))
    for one, other in zip((*got, *gradients[0]), (*expected, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


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


@pytest.mark.parametrize("junk", [float("inf"), float("nan")])
def test_what_has_overflowed_does_not_pass_a_reset(junk):
    parts = inputs(70, 2, 2, 3, 2)
    starts = torch.zeros(70, 2, dtype=torch.bool)
    starts[[0, 66], 0] = starts[5, 1] = True
    clean = delta_scan(*parts, starts)
    y, end = delta_scan(*parts[:-1], parts[-1] * junk, starts)
    assert torch.equal(y[:, 0], clean[0][:, 0]) and torch.equal(y[5:, 1], clean[0][5:, 1])
    assert torch.equal(end, clean[1])
    gradients = torch.autograd.grad(y[:, 0].sum() + end[0].sum(), parts[:-1])
    assert all(gradient[:, 0].isfinite().all() for gradient in gradients)


CORES = {"delta_net": naive_delta_net, "gated_delta_net": naive_gated_delta_net}


@pytest.mark.parametrize("name", CORES)
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_values_and_gradients_match_the_naive_version(name, data):
    sizes = {size: data.draw(st.integers(1, 4), size) for size in ("heads", "key_size", "value_size")}
    eigenvalues = data.draw(st.sampled_from(["positive", "signed"]), "eigenvalues")
    steps, batch = data.draw(st.integers(1, 7), "T"), data.draw(st.integers(1, 3), "B")
    torch.manual_seed(data.draw(st.integers(0, 999), "seed"))
    core = make_core(name, 5, eigenvalues=eigenvalues, **sizes).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, starts = torch.randn(steps, batch, 5, dtype=torch.float64), torch.rand(steps, batch) < 0.3
    shapes = core.state_spec.values()
    state = type(core.initial_state(1))(*(torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes))
    y, end = core(x, state, starts)
    expected_y, expected_end = CORES[name](core, x, state, starts)
    assert_same([y, *end], [expected_y, *expected_end], list(core.parameters()))


@pytest.mark.parametrize("name", CORES)
def test_a_key_recalls_its_last_value(name):
    """The second value for a key replaces the first: nothing of it is left where β is 1."""
    query, key, value, _, _, state = inputs(2, 1, 1, 3, 2)
    key = key[:1].expand(2, 1, 1, 3)
    ones = torch.ones(2, 1, 1, dtype=torch.float64)
    y, _ = delta_scan(key, key, value, ones, None, 0 * state, torch.zeros(2, 1, dtype=torch.bool))
    torch.testing.assert_close(y, value)
