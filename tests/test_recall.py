"""Every core with a memory learns to remember; one without cannot."""

import pytest
import torch
import torch.nn.functional as F

from relmem.agents import make_core, registered_cores

pytestmark = pytest.mark.slow  # it trains, by a loop of its own

SYMBOLS, DELAY, BATCH = 4, 6, 64
OPTIONS = {
    "lstm": {"hidden_size": 32},
    "gru": {"hidden_size": 32},
    "stm": {"queries": 2, "item_size": 16, "relation_size": 16},
    "rmc": {"slots": 2, "heads": 2, "head_size": 16},
    "gtrxl": {"hidden_size": 32, "window": 16},
    "lm2": {"slots": 4, "hidden_size": 32},
    "rmt": {"hidden_size": 32, "segment": 4},
    "armt": {"hidden_size": 32, "segment": 4},
    "lstm_stm": {"lstm_size": 32, "queries": 2, "item_size": 16, "relation_size": 16},
    "linear_attention": {"heads": 2, "key_size": 8, "value_size": 16},
    "correlation_matrix": {"heads": 2, "key_size": 8, "value_size": 16},
    "retnet": {"heads": 2, "key_size": 8, "value_size": 16},
    "gla": {"heads": 2, "key_size": 8, "value_size": 16},
    "mlstm": {"heads": 2, "key_size": 8, "value_size": 16},
    "fast_weights": {"hidden_size": 32},
    "weinet": {"hidden_size": 32},
    "shm": {"memory_size": 16},
    "rnn": {"hidden_size": 32},
    "min_gru": {"hidden_size": 32},
    "min_lstm": {"hidden_size": 32},
    "slstm": {"hidden_size": 32},
    "lru": {"hidden_size": 32},
    "rg_lru": {"hidden_size": 32},
    "ffm": {"hidden_size": 32, "memory_size": 16, "max_period": 64},
    "mamba": {"hidden_size": 32, "memory_size": 8},
    "mamba2": {"hidden_size": 32, "heads": 2, "key_size": 16},
    "delta_net": {"heads": 2, "key_size": 8, "value_size": 8},
    "gated_delta_net": {"heads": 2, "key_size": 8, "value_size": 8},
    "dnc": {"controller_size": 32, "cells": 8, "cell_size": 8, "read_heads": 1},
    "ntm": {"controller_size": 32, "cells": 8, "cell_size": 8, "read_heads": 1},
    "tpr": {"entity_size": 16, "relation_size": 8, "hidden_size": 32},
    "titans": {"memory_size": 16, "hidden_size": 16},
    "rwkv7": {"heads": 2, "head_size": 8, "rank": 4, "gate_rank": 8},
}


def remember_first(batch_size, marked=False):
    """The first symbol, then as many others as the delay is long: x [T, B, F], the first symbol [B]. Where it is
    marked, a feature more says which is the first."""
    symbols = torch.randint(SYMBOLS, (1 + DELAY, batch_size))
    x = F.one_hot(symbols, SYMBOLS + marked).float()
    if marked:
        x[0, :, -1] = 1.0
    return x, symbols[0]


def last_answer(core, x):
    return core(x, core.initial_state(x.shape[1]), torch.zeros(x.shape[:2], dtype=torch.bool))[0][-1]


def accuracy_after_training(core, iterations=400, enough=0.97, marked=False):
    """Train until the held-out accuracy is enough, or the iterations are over."""
    optimizer = torch.optim.Adam(core.parameters(), lr=5e-3)
    held_out, target = remember_first(512, marked)
    for iteration in range(1, iterations + 1):
        x, first = remember_first(BATCH, marked)
        loss = F.cross_entropy(last_answer(core, x), first)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(core.parameters(), 1.0)
        optimizer.step()
        if iteration % 20 == 0:
            with torch.no_grad():
                accuracy = (last_answer(core, held_out).argmax(1) == target).float().mean().item()
            if accuracy > enough:
                break
    return accuracy


MEMORYLESS = ("identity", "memory_layer")
# One layer of these writes the first input as it would write the same input later.
BY_INPUT = ("linear_attention", "correlation_matrix", "gla", "mlstm", "min_gru", "min_lstm")
REMEMBERING = [(name, {}) for name in registered_cores() if name not in (*MEMORYLESS, *BY_INPUT)] + [
    ("stm", {"preset": preset}) for preset in ("paper", "released", "released_rl")
]


@pytest.mark.parametrize(("name", "options"), REMEMBERING, ids=str)
def test_a_memory_learns_to_recall_the_first_symbol(name, options):
    core = make_core(name, SYMBOLS, SYMBOLS, **OPTIONS[name], **options)
    assert accuracy_after_training(core) > 0.9


@pytest.mark.parametrize("name", BY_INPUT)
def test_gates_by_the_input_alone_recall_what_is_marked(name):
    core = make_core(name, SYMBOLS + 1, SYMBOLS, **OPTIONS[name])
    assert accuracy_after_training(core, marked=True) > 0.9


@pytest.mark.parametrize("name", MEMORYLESS)
def test_without_a_memory_it_stays_at_chance(name):
    core = make_core(name, SYMBOLS, SYMBOLS)
    assert accuracy_after_training(core, iterations=200) < 1.5 / SYMBOLS
