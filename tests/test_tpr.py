"""TPR-RNN: what its equations say, and what its memory can do."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relmem.agents import make_core
from relmem.agents.cores.tpr import Projection
from tests.naive.rows import by_rows
from tests.naive.tpr import naive_tpr
from tests.parity import assert_core_is


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_values_and_gradients_match_the_naive_version(data):
    names = ("entity_size", "relation_size", "hidden_size")
    # Of entities of width 1 or 2, layer normalisation leaves no more than signs.
    sizes = {size: data.draw(st.integers(3, 4) if size == "entity_size" else st.integers(1, 4), size) for size in names}
    unit_vectors = data.draw(st.booleans(), "unit_vectors")
    seed = data.draw(st.integers(0, 999), "seed")
    assert_core_is(
        partial(by_rows, naive_tpr),
        "tpr",
        steps=4,
        seed=seed,
        tolerance=1e-8,
        unit_vectors=unit_vectors,
        **sizes,
    )


def unit(*at, size=4):
    return torch.eye(size, dtype=torch.float64)[list(at)].unsqueeze(0)


def test_a_fact_is_found_from_either_end_and_replaced():
    """r1 leads from e1 to e2, r3 back from e2 to e1, and what r1 led to before, r2 leads to now."""
    core = make_core("tpr", 3, entity_size=4, relation_size=4).double()
    relations = unit(0, 1, 2, 3, 3, 3)
    state = core.initial_state(1)
    _, state = core._step(Projection(unit(0, 1, 3), relations), state)  # e1 = 0, e2 = 1
    memory = state.memory[0]
    assert memory[0, 0].argmax() == 1 and memory[1, 2].argmax() == 0
    _, state = core._step(Projection(unit(0, 2, 3), relations), state)  # e1 = 0, e2 = 2
    memory = state.memory[0]
    torch.testing.assert_close(memory[0, 0], unit(2)[0, 0])
    torch.testing.assert_close(memory[0, 1], unit(1)[0, 0])
    torch.testing.assert_close(memory[2, 2], unit(0)[0, 0])


@pytest.mark.parametrize("unit_vectors", [True, False])
def test_unit_vectors_keep_the_memory_of_a_long_episode_bounded(unit_vectors):
    torch.manual_seed(0)
    core = make_core("tpr", 8, unit_vectors=unit_vectors)
    with torch.no_grad():
        _, end = core(3 * torch.randn(300, 1, 8), core.initial_state(1), torch.zeros(300, 1, dtype=torch.bool))
    assert bool(end.memory.abs().max() < 10) == unit_vectors
