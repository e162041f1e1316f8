"""Small cores, sequences and the loop that ``forward`` has to equal: what tests of cores share."""

import torch

from relmem.agents import make_core, registered_cores

SMALL = {
    "lstm": {"hidden_size": 8},
    "gru": {"hidden_size": 8},
    "stm": {"queries": 2, "item_size": 5, "relation_size": 3},
    "rmc": {"slots": 3, "heads": 2, "head_size": 4},
    "gtrxl": {"hidden_size": 6, "heads": 2, "window": 10, "mlp_size": 5},
    "lm2": {"slots": 3, "hidden_size": 6, "heads": 2},
    "memory_layer": {"hidden_size": 5, "keys": 4, "top": 3, "heads": 2, "key_size": 3},
    "rmt": {"hidden_size": 6, "heads": 2, "segment": 4, "tokens": 2},
    "armt": {"hidden_size": 6, "heads": 2, "segment": 4, "tokens": 3, "key_size": 4},
    "lstm_stm": {"lstm_size": 8, "queries": 2, "item_size": 5, "relation_size": 3},
    "linear_attention": {"heads": 2, "key_size": 4, "value_size": 3},
    "correlation_matrix": {"heads": 2, "key_size": 4, "value_size": 3},
    "retnet": {"heads": 2, "key_size": 4, "value_size": 3},
    "gla": {"heads": 2, "key_size": 4, "value_size": 3, "rank": 2},
    "mlstm": {"heads": 2, "key_size": 4, "value_size": 3},
    "fast_weights": {"hidden_size": 8, "inner_steps": 2},
    "weinet": {"hidden_size": 8},
    "shm": {"memory_size": 5},
    "rnn": {"hidden_size": 8},
    "min_gru": {"hidden_size": 8},
    "min_lstm": {"hidden_size": 8},
    "slstm": {"hidden_size": 6, "heads": 2},
    "lru": {"hidden_size": 8},
    "rg_lru": {"hidden_size": 8, "conv_size": 3},
    "ffm": {"hidden_size": 5, "memory_size": 4, "context_size": 3, "max_period": 20},
    "mamba": {"hidden_size": 8, "memory_size": 3, "conv_size": 3, "rank": 2},
    "mamba2": {"hidden_size": 6, "heads": 2, "key_size": 3, "conv_size": 3},
    "delta_net": {"heads": 2, "key_size": 4, "value_size": 3},
    "gated_delta_net": {"heads": 2, "key_size": 4, "value_size": 3, "conv_size": 3},
    "dnc": {"controller_size": 6, "cells": 4, "cell_size": 3, "read_heads": 2},
    "ntm": {"controller_size": 6, "cells": 4, "cell_size": 3, "read_heads": 2},
    "tpr": {"entity_size": 4, "relation_size": 3, "hidden_size": 5},
    "titans": {"memory_size": 4, "hidden_size": 3},
    "rwkv7": {"heads": 2, "head_size": 4, "rank": 2, "gate_rank": 3},
}
VARIANTS = [(name, {}) for name in registered_cores()] + [
    *(("stm", {"preset": preset}) for preset in ("paper", "released", "released_rl")),
    ("stm", {"gated": False}),
    *(("rmc", options) for options in ({"preset": "l0sg"}, {"gate": "memory", "blocks": 2}, {"gate": "none"})),
    ("lstm_stm", {"preset": "released_rl"}),
    ("slstm", {"forget": "exp"}),
    *(("gtrxl", options) for options in ({"gate": "none"}, {"layers": 2}, {"hidden_size": 8, "window": 30})),
    *(("gru", options) for options in ({"layers": 2}, {"layers": 2, "residual": True})),
]
F, OUT, T, B = 6, 4, 11, 5


def small(name, options=None, output_size=OUT, **kwargs):
    return make_core(name, F, output_size, **{**SMALL.get(name, {}), **(options or {}), **kwargs})


def double(name, options=None):
    """In double precision, with every parameter away from its special start."""
    core = small(name, options).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return core


def sequence(dtype=torch.float64, p=0.25):
    return torch.randn(T, B, F, dtype=dtype), torch.rand(T, B) < p


def random_state(core, batch_size=B):
    return type(core.initial_state(1))(
        *(torch.randn(batch_size, *s, dtype=core.dtype) for s in core.state_spec.values())
    )


def loop_of_steps(core, x, state, starts):
    """What ``forward`` has to equal, spelt out."""
    outputs = []
    for x_t, starts_t in zip(x, starts, strict=True):
        rows = []
        for new, old in zip(core.initial_state(len(starts_t)), state, strict=True):
            rows.append(torch.stack([new[b] if start else old[b] for b, start in enumerate(starts_t)]))
        y, state = core.step(x_t, type(state)(*rows))
        outputs.append(y)
    return torch.stack(outputs), state


def assert_equal(got, expected, tolerance=1e-10):
    (y, state), (expected_y, expected_state) = got, expected
    torch.testing.assert_close(y, expected_y, rtol=0, atol=tolerance)
    for leaf, expected_leaf in zip(state, expected_state, strict=True):
        torch.testing.assert_close(leaf, expected_leaf, rtol=tolerance, atol=tolerance)


def core_inputs(core):
    x, starts = sequence(torch.float32)
    return x, core.initial_state(B), starts
