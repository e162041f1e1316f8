"""RMC: parity with the naive version, initial state and options."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relmem.agents import make_core
from tests.naive.rmc import naive_rmc_sequence
from tests.parity import assert_naive, moved

PRESETS, GATES = ("sonnet", "l0sg"), ("unit", "memory", "none")

SHAPES = [
    {},
    {"blocks": 3},
    {"mlp_layers": 1},
    {"mlp_layers": 4},
    {"key_size": 5},
    {"slots": 1, "heads": 1, "head_size": 4},
    {"slots": 7, "heads": 1, "head_size": 3},
]


@pytest.mark.parametrize("preset", ["sonnet", "l0sg"])
@pytest.mark.parametrize("gate", ["unit", "memory", "none"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("output_size", [None, 3])
def test_values_and_gradients_match_the_naive_version(preset, gate, shape, output_size):
    options = {"slots": 3, "heads": 2, "head_size": 4, **shape}
    core = moved("rmc", 5, output_size, preset=preset, gate=gate, **options)
    x = torch.randn(4, 2, 5, dtype=torch.float64)
    starts = torch.tensor([[0, 1], [0, 0], [1, 0], [0, 0]]).bool()
    begin = type(core.initial_state(2))(torch.randn(2, *core.state_spec["memory"], dtype=torch.float64))
    assert_naive(core, naive_rmc_sequence, x, begin, starts, tolerance=1e-8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_shape_and_any_starts_match_the_naive_version(dtype, tolerance, data):
    sizes = {name: data.draw(st.integers(1, 4), name) for name in ("slots", "heads", "head_size", "key_size")}
    layers = {name: data.draw(st.integers(1, 3), name) for name in ("blocks", "mlp_layers")}
    preset, gate = data.draw(st.sampled_from(PRESETS), "preset"), data.draw(st.sampled_from(GATES), "gate")
    steps, batch = data.draw(st.integers(1, 5), "T"), data.draw(st.integers(1, 3), "B")
    starts = data.draw(st.lists(st.booleans(), min_size=steps * batch, max_size=steps * batch), "starts")
    torch.manual_seed(data.draw(st.integers(0, 999), "seed"))
    core = make_core("rmc", 5, preset=preset, gate=gate, **sizes, **layers).double()
    x = torch.randn(steps, batch, 5, dtype=torch.float64)
    memory, end_weights = torch.randn(2, batch, *core.state_spec["memory"], dtype=torch.float64)
    weights = torch.randn(steps, batch, core.output_size, dtype=torch.float64)
    starts = torch.tensor(starts).view(steps, batch)

    def results(run, dtype):
        """Outputs, last memory, and the gradients of inputs, first memory and parameters."""
        core.to(dtype)
        sources = [x.to(dtype).requires_grad_(), memory.to(dtype).requires_grad_(), *core.parameters()]
        y, (end,) = run(sources[0], type(core.initial_state(1))(sources[1]))
        loss = (y * weights.to(dtype)).sum() + (end * end_weights.to(dtype)).sum()
        return y, end, *torch.autograd.grad(loss, sources, allow_unused=True, materialize_grads=True)

    expected = results(lambda x, state: naive_rmc_sequence(core, x, state, starts), torch.float64)
    for got, want in zip(results(lambda x, state: core(x, state, starts), dtype), expected, strict=True):
        assert got.dtype == dtype
        scale = max(1.0, want.abs().max().item())
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize(("slots", "heads", "head_size"), [(3, 2, 4), (5, 1, 2)])
def test_episodes_begin_with_the_rows_of_an_identity(slots, heads, head_size):
    core = make_core("rmc", 5, slots=slots, heads=heads, head_size=head_size)
    memory = core.initial_state(2).memory
    assert memory.shape == (2, slots, heads * head_size)
    for i in range(slots):
        expected = torch.zeros(heads * head_size)
        expected[i : i + 1] = 1.0  # beyond the width: a row of zeros
        assert torch.equal(memory[0, i], expected)
        assert torch.equal(memory[1, i], expected)


def test_blocks_share_their_weights():
    counts = {
        sum(p.numel() for p in make_core("rmc", 5, slots=2, heads=2, head_size=4, blocks=blocks).parameters())
        for blocks in (1, 4)
    }
    assert len(counts) == 1


def test_gate_biases_are_learned_in_the_port_only():
    for preset, learned in (("sonnet", False), ("l0sg", True)):
        core = make_core("rmc", 5, preset=preset)
        assert ("forget_bias" in dict(core.named_parameters())) is learned
        assert core.forget_bias.item() == 1.0
        assert core.input_bias.item() == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "sonet"}, "did you mean 'sonnet'?"),
        ({"gate": "units"}, "did you mean 'unit'?"),
        ({"gate": None}, "gate must be one of unit, memory, none, got None"),
        ({"slots": 0}, "slots must be an integer of at least 1, got 0"),
        ({"heads": -3}, "heads must be an integer of at least 1, got -3"),
        ({"head_size": 1.5}, "head_size must be an integer of at least 1, got 1.5"),
        ({"key_size": True}, "key_size must be an integer of at least 1 or null, got True"),
        ({"blocks": float("nan")}, "blocks must be an integer of at least 1, got nan"),
        ({"mlp_layers": 0}, "mlp_layers must be an integer of at least 1, got 0"),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_sentence(options, message):
    with pytest.raises(ValueError) as error:
        make_core("rmc", 5, **options)
    assert message in str(error.value)
