"""Every core with a memory learns to remember; one without cannot."""

import json

import pytest
import torch
import torch.nn.functional as F

from benchmarks.recall import FILE, OPTIONS, ROWS, TASKS, Result, train
from relmem.agents import make_core, registered_cores
from relmem.agents.cores.registry import CORES

pytestmark = pytest.mark.slow  # it trains, by a loop of its own

SYMBOLS, DELAY, BATCH = 4, 6, 64


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


# ---------------------------------------------------------------- the table of results/recall

TABLE = {
    label: {task: Result(**row[task]) for task in TASKS} for label, row in json.loads(FILE.read_text())["rows"].items()
}


def solved(task):
    return {label for label, results in TABLE.items() if results[task].solved}


def test_the_table_has_a_row_for_every_core():
    shipped = {label for label, (name, _) in ROWS.items() if CORES.factory(name).__module__.startswith("relmem.")}
    assert set(TABLE) == shipped


def test_without_a_memory_every_task_is_missed():
    for task in TASKS:
        assert not solved(task) & set(MEMORYLESS)
    assert all(TABLE["identity"][task].accuracy < 1.2 / classes for task, (_, classes, _) in TASKS.items())


# Recurrences through a nonlinearity, or through a matrix that may turn a sign, can track a state.
TRACKING = {"rnn", "gru", "lstm", "slstm", "dnc", "ntm", "tpr", "stm", "rmc", "lm2"} | {
    label for label in ROWS if "signed" in label
}
# An input multiplies the state with positive numbers, if with any; or the state is a window.
UNABLE_TO_TRACK = {
    *("lru", "rg_lru", "ffm", "mamba", "mamba2", "min_gru", "min_lstm", "linear_attention", "correlation_matrix"),
    *("retnet", "gla", "mlstm", "shm", "delta_net", "gated_delta_net", "gtrxl", "rmt", "armt"),
}
# Outer products, cells and attention find a value by its key.
FINDING = {
    *("linear_attention", "correlation_matrix", "retnet", "gla", "mlstm", "shm", "fast_weights", "weinet", "rwkv7"),
    *("delta_net", "gated_delta_net", "gtrxl", "stm", "dnc", "titans", "tpr", "rmt", "armt"),
}


def test_each_family_solves_what_it_can():
    assert set(TABLE) - {*MEMORYLESS, "lru"} <= solved("delay")
    assert solved("pairs") >= FINDING
    assert solved("parity") >= TRACKING and not UNABLE_TO_TRACK & solved("parity")


@pytest.mark.parametrize(
    ("label", "task"),
    [
        ("rnn", "delay"),
        ("gtrxl", "delay"),
        ("mlstm", "pairs"),
        ("delta_net", "pairs"),
        ("rnn", "parity"),
        ("gru", "parity"),
        ("delta_net, signed eigenvalues", "parity"),
    ],
)
def test_what_the_table_says_is_learned_again(label, task):
    name, options = ROWS[label]
    assert train(name, task, **options).solved and label in solved(task)


def test_positive_eigenvalues_track_no_parity():
    name, options = ROWS["delta_net"]
    assert not train(name, "parity", **options).solved and "delta_net" not in solved("parity")
