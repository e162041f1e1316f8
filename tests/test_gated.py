"""Gated recurrences: parity with the naive versions, and what each is known for."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from relmem.agents import make_core
from tests.naive import gated
from tests.naive.rows import by_rows
from tests.parity import assert_naive, moved
from tests.small_cores import random_state

CASES = [
    ("rnn", {}),
    *((name, {"candidate": kind}) for name in ("min_gru", "min_lstm") for kind in ("linear", "positive")),
    *(("slstm", {"forget": forget, "heads": heads}) for forget in ("sigmoid", "exp") for heads in (1, 3)),
]


def draw(name, options, steps, batch, p, output_size=3):
    """A core in double precision away from its start, inputs, a state and starts."""
    core = moved(name, 4, output_size, **options)
    x, starts = torch.randn(steps, batch, 4, dtype=torch.float64), torch.rand(steps, batch) < p
    state = random_state(core, batch)
    if name == "slstm":  # where sums of exponentials are positive
        state = state._replace(normaliser=1 + state.normaliser.abs())
    return core, x, state, starts


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@settings(max_examples=8)
@given(st.integers(1, 5), st.integers(1, 3), st.sampled_from([0.0, 0.4, 1.0]), st.integers(0, 99))
def test_values_and_gradients_match_the_naive_version(name, options, steps, batch, p, seed):
    torch.manual_seed(seed)
    core, x, state, starts = draw(name, {"hidden_size": 6, **options}, steps, batch, p, (None, 3)[seed % 2])
    assert_naive(core, partial(by_rows, getattr(gated, name)), x, state, starts)


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_an_slstm_is_the_one_without_a_stabiliser(forget):
    """The stabiliser m changes how c and n are kept, not what is read: c exp(m) and n exp(m) are those of the paper's
    equations 8 and 9."""
    core, x, state, _ = draw("slstm", {"hidden_size": 6, "heads": 2, "forget": forget}, 1, 2, 0.0, None)
    hidden, cell, normaliser, stabiliser = state
    logits = core.project(x[0]).unflatten(1, (2, 12)) + torch.einsum("bhd,hde->bhe", hidden, core.recurrent)
    z, take, keep, output = logits.chunk(4, dim=2)
    keep = keep.sigmoid() if forget == "sigmoid" else keep.exp()
    expected_cell = keep * cell * stabiliser.exp() + take.exp() * z.tanh()
    expected_normaliser = keep * normaliser * stabiliser.exp() + take.exp()
    y, end = core.step(x[0], state)
    torch.testing.assert_close(end.cell * end.stabiliser.exp(), expected_cell)
    torch.testing.assert_close(end.normaliser * end.stabiliser.exp(), expected_normaliser)
    torch.testing.assert_close(y, (output.sigmoid() * expected_cell / expected_normaliser).flatten(1))


def test_the_normaliser_of_an_slstm_never_falls_below_one():
    core = make_core("slstm", 4, hidden_size=6, heads=2)
    _, end = core(10 * torch.randn(50, 3, 4), core.initial_state(3), torch.zeros(50, 3, dtype=torch.bool))
    assert (end.normaliser >= 1).all()


def parity_after_training(core, iterations, length=12):
    """How many parities of the whole sequence are right, trained on the parity after each step."""
    optimizer = torch.optim.Adam(core.parameters(), lr=1e-2)

    def answers(batch_size):
        bits = torch.randint(2, (length, batch_size))
        x, none = F.one_hot(bits, 2).float(), torch.zeros(length, batch_size, dtype=torch.bool)
        return core(x, core.initial_state(batch_size), none)[0], bits.cumsum(0) % 2

    for _ in range(iterations):
        y, parity = answers(64)
        optimizer.zero_grad()
        F.cross_entropy(y.flatten(0, 1), parity.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(core.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        y, parity = answers(512)
    return (y[-1].argmax(1) == parity[-1]).float().mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rnn", "slstm"])
def test_a_state_that_writes_depend_on_learns_parity(name):
    assert parity_after_training(make_core(name, 2, 2, hidden_size=16), 300) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["min_gru", "rg_lru"])
def test_parity_is_beyond_positive_decays_by_the_input_alone(name):
    assert parity_after_training(make_core(name, 2, 2, hidden_size=16), 300) < 0.7


@pytest.mark.parametrize("name", ["min_gru", "min_lstm"])
def test_gates_are_how_much_of_the_hidden_state_is_kept(name):
    core, x = make_core(name, 4, hidden_size=6), torch.randn(3, 4)
    state = random_state(core, 3)
    gates, (_, after) = core.gates(x, state), core.step(x, state)
    _, more = core.step(x, state._replace(hidden=state.hidden + 1))
    kept = gates["forget_gate"] if name == "min_lstm" else 1 - gates["update_gate"]
    torch.testing.assert_close(more.hidden - after.hidden, kept)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="heads must divide hidden_size 10: 4 do not, 5 would"):
        make_core("slstm", 4, hidden_size=10, heads=4)


@pytest.mark.parametrize("name", ["min_gru", "min_lstm"])
def test_positive_candidates_keep_hidden_states_positive(name):
    core = make_core(name, 4, hidden_size=6, candidate="positive")
    y, _ = core(10 * torch.randn(20, 3, 4), core.initial_state(3), torch.zeros(20, 3, dtype=torch.bool))
    assert (y >= 0).all()
