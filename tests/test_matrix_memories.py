"""Memories of matrices: parity with the naive versions, long sequences, and what the options refuse."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from relmem.agents import make_core
from tests.golden import assert_trace, load, load_core
from tests.naive import matrix
from tests.parity import assert_naive, moved
from tests.small_cores import loop_of_steps

SIZES = {"heads": (1, 3), "key_size": (1, 3), "value_size": (1, 3)}
BY_HEADS = ("linear_attention", "correlation_matrix", "retnet", "gla", "mlstm")
NAIVE = {
    **{name: (partial(matrix.naive_heads, getattr(matrix, name)), SIZES) for name in BY_HEADS},
    "fast_weights": (matrix.naive_fast_weights, {"hidden_size": (2, 4), "inner_steps": (1, 3)}),
    "weinet": (matrix.naive_fast_weights, {"hidden_size": (2, 4), "inner_steps": (1, 3)}),
    "shm": (matrix.naive_shm, {"memory_size": (1, 4)}),
}


def plausible_state(core, batch_size):
    """A state as the core itself could have made it."""
    x = torch.randn(3, batch_size, 5, dtype=torch.float64)
    with torch.no_grad():
        return core(x, core.initial_state(batch_size), torch.zeros(3, batch_size, dtype=torch.bool))[1]


def unscaled(state):
    """What the memory of a core is in the paper: mLSTM's without the stabiliser."""
    if not hasattr(state, "stabiliser"):
        return list(state)
    scale = state.stabiliser.exp().unsqueeze(-1)
    return [state.memory * scale.unsqueeze(-1), state.normaliser * scale]


@pytest.mark.parametrize("name", NAIVE)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_shape_and_any_starts_match_the_naive_version(name, data):
    naive, ranges = NAIVE[name]
    sizes = {size: data.draw(st.integers(*limits), size) for size, limits in ranges.items()}
    if name == "retnet":
        sizes["key_size"] *= 2
    if name == "gla":
        sizes["rank"] = data.draw(st.integers(1, 2), "rank")
    if name == "mlstm":
        sizes["normalised"] = data.draw(st.booleans(), "normalised")
    steps, batch = data.draw(st.integers(1, 6), "T"), data.draw(st.integers(1, 3), "B")
    starts = data.draw(st.lists(st.booleans(), min_size=steps * batch, max_size=steps * batch), "starts")
    torch.manual_seed(data.draw(st.integers(0, 999), "seed"))
    core = moved(name, output_size=data.draw(st.sampled_from([None, 3]), "O"), **sizes)
    x = torch.randn(steps, batch, 5, dtype=torch.float64)
    state, starts = plausible_state(core, batch), torch.tensor(starts).view(steps, batch)
    assert_naive(core, naive, x, state, starts, kept=unscaled)


@pytest.mark.parametrize("name", BY_HEADS)
@pytest.mark.parametrize("T", [63, 64, 65, 300])
def test_long_sequences_are_the_loop(name, T):
    core = moved(name, heads=2, key_size=4, value_size=3)
    x = torch.randn(T, 3, 5, dtype=torch.float64, requires_grad=True)
    state, starts = plausible_state(core, 3), torch.rand(T, 3) < 0.03
    results = []
    for y, end in (core(x, state, starts), loop_of_steps(core, x, state, starts)):
        results.append((y, *end, *torch.autograd.grad(y.square().sum(), [x, *core.parameters()])))
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-8)


def test_an_odd_key_size_is_refused_where_channels_turn_in_pairs():
    with pytest.raises(ValueError, match="key_size must be even, such as 6, as"):
        make_core("retnet", 5, key_size=5)


def test_decays_of_gla_have_a_floor():
    core = make_core("gla", 5, heads=1, key_size=4)
    with torch.no_grad():
        core.decay[1].bias.fill_(-1e6)
    torch.testing.assert_close(core.log_decay(torch.randn(3, 5)), torch.full((3, 1, 4), -5.0))


def test_mlstm_holds_inputs_that_overflow_without_a_stabiliser():
    core, x = make_core("mlstm", 5, heads=1, key_size=4, value_size=3), torch.randn(70, 2, 5)
    with torch.no_grad():
        core.input_gate.bias.fill_(500.0)
    y, end = core(x, core.initial_state(2), torch.rand(70, 2) < 0.1)
    assert all(tensor.isfinite().all() for tensor in (y, *end))
    assert y.abs().max() > 0.01


@pytest.mark.parametrize("T", [1, 4])
def test_an_mlstm_whose_gates_are_shut_has_finite_gradients(T):
    core, x = make_core("mlstm", 5, heads=1, key_size=4, value_size=3), torch.randn(T, 2, 5)
    with torch.no_grad():
        core.input_gate.bias.fill_(-500.0)
        core.forget_gate.bias.fill_(-500.0)
    y, _ = core(x, core.initial_state(2), torch.zeros(T, 2, dtype=torch.bool))
    y.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in core.parameters())


HEADS = {"heads": 2, "key_size": 4, "value_size": 3}
GOLDEN = {
    "linear_attention": HEADS,
    "retnet": HEADS,
    "gla": {**HEADS, "rank": 2},
    "mlstm": {**HEADS, "normalised": False},
    "shm": {"memory_size": 4},
}


@pytest.mark.parametrize("name", GOLDEN)
def test_values_and_gradients_are_those_of_a_public_implementation(name):
    """Which one, is said by ``tests/data/golden/make_matrix.py``, which wrote the file."""
    arrays = load(f"golden/{name}")
    assert_trace(load_core(name, arrays, **GOLDEN[name]), arrays)


# ------------------------------------------------------------------------------------------------ associative recall

SYMBOLS, ANSWERS, BATCH = 16, 8, 64
RECALLING = {
    **dict.fromkeys(BY_HEADS, (8, {"heads": 2, "key_size": 16, "value_size": 32})),
    "shm": (8, {"memory_size": 32}),
    "fast_weights": (4, {"hidden_size": 50}),
    "weinet": (4, {"hidden_size": 50}),
}


def pairs_and_a_key(pairs):
    """Pairs of a key and a value, then one of the keys: x [pairs + 1, B, F], the value of that key [B]."""
    keys = torch.rand(BATCH, SYMBOLS).argsort(dim=1)[:, :pairs].T  # [pairs, B], all different in a row
    values, asked = torch.randint(ANSWERS, (pairs, BATCH)), torch.randint(pairs, (1, BATCH))
    shown = torch.cat([F.one_hot(keys, SYMBOLS), F.one_hot(values, ANSWERS), torch.zeros(pairs, BATCH, 1)], dim=2)
    cue = F.one_hot(keys.gather(0, asked), SYMBOLS)
    question = torch.cat([cue, torch.zeros(1, BATCH, ANSWERS), torch.ones(1, BATCH, 1)], dim=2)
    return torch.cat([shown, question]), values.gather(0, asked)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECALLING)
def test_it_learns_to_recall_the_value_of_a_key(name):
    pairs, options = RECALLING[name]
    core = make_core(name, SYMBOLS + ANSWERS + 1, ANSWERS, **options)
    optimizer, hits = torch.optim.Adam(core.parameters(), lr=3e-3), 0.0
    for _ in range(800):
        x, value = pairs_and_a_key(pairs)
        starts = torch.zeros(x.shape[:2], dtype=torch.bool)
        answer = core(x, core.initial_state(BATCH), starts, since=-1)[0][0]
        optimizer.zero_grad()
        F.cross_entropy(answer, value).backward()
        torch.nn.utils.clip_grad_norm_(core.parameters(), 1.0)
        optimizer.step()
        hits += 0.1 * ((answer.argmax(1) == value).float().mean().item() - hits)  # of the last ten batches or so
        if hits > 0.95:
            break
    assert hits > 0.9
