"""Cores made of cores: stacks and residual blocks."""

import pickle

import pytest
import torch

from relmem.agents import StackedCore, check_core, make_core, register_core, registered_cores
from relmem.agents.cores import ResidualCore, core_options
from relmem.agents.cores.registry import CORES
from tests.small_cores import B, F, assert_equal, double, loop_of_steps, random_state, sequence, small


def test_a_stack_chains_its_cores_and_keeps_their_states_apart():
    lstm, gru = make_core("lstm", F, hidden_size=3).double(), make_core("gru", 3, hidden_size=4).double()
    stack, wide = StackedCore({"a": lstm, "b": gru}), StackedCore({"a": lstm, "b": gru}, concatenate=True)
    assert stack.state_spec == {"a_hidden": (3,), "a_cell": (3,), "b_hidden": (4,)}
    x, starts = sequence()
    hidden, _ = lstm(x, lstm.initial_state(B), starts)
    y, _ = gru(hidden, gru.initial_state(B), starts)
    torch.testing.assert_close(stack.double()(x, stack.initial_state(B), starts)[0], y)
    both, state = wide.double()(x, wide.initial_state(B), starts)
    torch.testing.assert_close(both, torch.cat([y, hidden], dim=2))
    torch.testing.assert_close(state.b_hidden, y[-1])


def test_a_stack_refuses_cores_that_do_not_fit():
    with pytest.raises(ValueError, match="core 'b' takes 5 features, but the one before it gives 3"):
        StackedCore({"a": make_core("lstm", F, hidden_size=3), "b": make_core("gru", 5)})
    with pytest.raises(ValueError, match="at least one core"):
        StackedCore({})
    with pytest.raises(ValueError, match="at least one core, each by its name"):
        StackedCore([make_core("gru", 3)])


@pytest.mark.parametrize("name", ["a.b", "1", 1, "_x", "type", "training", ""])
def test_a_stack_refuses_names_that_its_state_cannot_have(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot be the name of a core"):
        StackedCore({name: make_core("gru", 3)})


def test_a_stack_refuses_two_leaves_of_one_name():
    inner = StackedCore({"b": make_core("gru", F, hidden_size=3)})
    with pytest.raises(ValueError, match="two leaves of the state would be named 'a_b_hidden'"):
        StackedCore({"a": inner, "a_b": make_core("gru", 3, hidden_size=3)})


def test_a_core_may_be_stacked_on_itself():
    core = make_core("gru", F, hidden_size=F).double()
    stack = StackedCore({"first": core, "second": core}).double()
    x, starts = sequence()
    whole, _ = stack(x, stack.initial_state(B), starts)
    last, _ = stack(x, stack.initial_state(B), starts, since=-2)
    torch.testing.assert_close(last, whole[-2:])


def test_lstm_stm_takes_the_options_of_stm():
    assert core_options("lstm_stm").keys() == core_options("stm").keys() | {"lstm_size"}
    core = small("lstm_stm", output_size=None, preset="released_rl", lstm_size=7)
    assert core.state_spec == {"lstm_hidden": (7,), "lstm_cell": (7,), "stm_item": (5, 5)}
    assert core.output_size == 14


# ------------------------------------------------------------------------------------------------ residual blocks


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", registered_cores())
def test_a_residual_block_keeps_the_contract(name, gated):
    for core in (ResidualCore(small(name), gated), ResidualCore(small(name, output_size=F), gated, mlp_size=3)):
        assert core.output_size == F
        check_core(core)
    state = random_state(core)
    again, same = pickle.loads(pickle.dumps((core, state)))
    x, starts = sequence(torch.float32)
    assert_equal(again(x, same, starts), core(x, state, starts), tolerance=0)


def test_residual_blocks_can_be_stacked():
    stack = StackedCore({name: ResidualCore(double(name)) for name in ("lstm", "stm")}).double()
    x, starts = sequence()
    state = random_state(stack)
    assert_equal(stack(x, state, starts), loop_of_steps(stack, x, state, starts))
    assert {name.split("_")[0] for name in stack.gates(x[0], state)} == {"lstm", "stm"}


def test_a_residual_block_without_core_and_network_hands_on_its_input():
    block = ResidualCore(make_core("identity", F)).double()
    with torch.no_grad():
        for parameter in (*block.mlp.parameters(), *block.norm.parameters()):
            parameter.zero_()
    x, starts = sequence()
    torch.testing.assert_close(block(x, block.initial_state(B), starts)[0], x)


def test_a_closed_gate_keeps_the_core_out():
    block = ResidualCore(double("gru"), gated=True).double()
    x, starts = sequence()
    state = random_state(block)
    with torch.no_grad():
        block.gate.bias.fill_(-1e3)
        closed = block(x, state, starts)[0]
        block.out.weight.zero_(), block.out.bias.zero_()
        torch.testing.assert_close(block(x, state, starts)[0], closed)


def test_the_size_of_a_residual_block_is_checked():
    with pytest.raises(ValueError, match=r"mlp_size.*at least 1.*0"):
        ResidualCore(make_core("gru", F), mlp_size=0)


# ------------------------------------------------------------------------------------------------ layers by option


@pytest.mark.parametrize("name", registered_cores())
def test_every_core_can_be_put_into_layers(name):
    core = small(name, {"layers": 2, "residual": True}, 3)
    assert core.output_size == 3
    if core_options(name)["layers"].help == core_options("identity")["layers"].help:  # else they are its own
        assert core.state_size == 2 * small(name).state_size
    check_core(core)


def test_layers_are_a_stack():
    torch.manual_seed(0)
    layers = make_core("lstm", F, 3, hidden_size=4, layers=2).double()
    torch.manual_seed(0)
    by_hand = {"layer1": make_core("lstm", F, hidden_size=4), "layer2": make_core("lstm", 4, 3, hidden_size=4)}
    stack = StackedCore(by_hand).double()
    x, starts = sequence()
    assert_equal(layers(x, layers.initial_state(B), starts), stack(x, stack.initial_state(B), starts), tolerance=0)
    assert list(layers.state_spec) == [f"layer{n}_{leaf}" for n in (1, 2) for leaf in ("hidden", "cell")]


def test_residual_layers_are_a_stack_of_blocks():
    torch.manual_seed(0)
    layers = make_core("gru", F, 3, hidden_size=4, layers=2, residual=True).double()
    torch.manual_seed(0)
    blocks = {f"layer{n}": ResidualCore(make_core("gru", F, hidden_size=4)) for n in (1, 2)}
    stack = StackedCore(blocks, output_size=3).double()
    x, starts = sequence()
    assert_equal(layers(x, layers.initial_state(B), starts), stack(x, stack.initial_state(B), starts), tolerance=0)


def test_one_layer_without_a_block_is_the_core_itself():
    assert type(make_core("gru", F, layers=1, residual=False)) is type(make_core("gru", F))


def test_all_cores_have_the_options_of_layers():
    assert core_options("gru")["layers"].default == 1
    assert "number of cores in a row" in core_options("gru")["layers"].help
    with pytest.raises(ValueError, match=r"layers must be an integer of at least 1, got 0"):
        make_core("gru", F, layers=0)
    with pytest.raises(ValueError, match="unknown option of core 'gru' 'layer': did you mean 'layers'"):
        make_core("gru", F, layer=2)


def test_a_core_keeps_an_option_of_that_name_of_its_own():
    @register_core("with_layers_of_its_own")
    def with_layers_of_its_own(input_size, output_size=None, layers: int = 5):
        return make_core("gru", input_size, output_size, hidden_size=layers)

    try:
        assert make_core("with_layers_of_its_own", F, layers=3).state_spec == {"hidden": (3,)}
        assert core_options("with_layers_of_its_own")["layers"].default == 5
    finally:
        CORES._factories.pop("with_layers_of_its_own")
