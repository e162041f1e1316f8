"""The contract of a memory core, checked for every registered core."""

import copy
import pickle

import pytest
import torch

from relmem.agents import make_core, registered_cores
from tests.small_cores import (
    OUT,
    VARIANTS,
    B,
    F,
    T,
    assert_equal,
    core_inputs,
    double,
    loop_of_steps,
    random_state,
    sequence,
    small,
)

every_core = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)


@every_core
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_forward_is_a_loop_of_steps_in_values_and_gradients(name, options, p):
    core = double(name, options)
    x, starts = sequence(p=p)
    x.requires_grad_()
    state = random_state(core)
    got, expected = core(x, state, starts), loop_of_steps(core, x, state, starts)
    assert got[0].shape == (T, B, OUT)
    assert_equal(got, expected)
    weights = torch.randn_like(got[0])
    sources = [x, *core.parameters()]
    gradients = torch.autograd.grad((got[0] * weights).sum(), sources, allow_unused=True, materialize_grads=True)
    expected = torch.autograd.grad((expected[0] * weights).sum(), sources, allow_unused=True, materialize_grads=True)
    for gradient, expected_gradient in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-9)


@every_core
def test_a_packed_sequence_is_its_episodes_one_by_one(name, options):
    core = double(name, options)
    lengths = [3, 1, 5, 2]
    episodes = [torch.randn(length, 1, F, dtype=torch.float64) for length in lengths]
    starts = torch.zeros(sum(lengths), 1, dtype=torch.bool)
    begin = 0
    for length in lengths:
        starts[begin] = True
        begin += length
    packed, end = core(torch.cat(episodes), random_state(core, 1), starts)
    no_starts = [torch.zeros(length, 1, dtype=torch.bool) for length in lengths]
    separate = [core(x, core.initial_state(1), none) for x, none in zip(episodes, no_starts, strict=True)]
    assert_equal((packed, end), (torch.cat([y for y, _ in separate]), separate[-1][1]))


@every_core
def test_a_sequence_may_be_cut_anywhere(name, options):
    core = double(name, options)
    x, starts = sequence()
    state = random_state(core)
    first, middle = core(x[:4], state, starts[:4])
    second, end = core(x[4:], middle, starts[4:])
    assert_equal((torch.cat([first, second]), end), core(x, state, starts))


@every_core
def test_environments_do_not_see_each_other(name, options):
    core = double(name, options)
    x, starts = sequence()
    state = random_state(core)
    y, end = core(x, state, starts)
    for b in range(B):
        alone = slice(b, b + 1)
        expected = core(x[:, alone], type(state)(*(leaf[alone] for leaf in state)), starts[:, alone])
        assert_equal((y[:, alone], type(end)(*(leaf[alone] for leaf in end))), expected)


@every_core
@pytest.mark.parametrize("begin", [0, 2])
@pytest.mark.parametrize("junk", [1e30, float("inf"), float("nan")])
def test_a_ruined_state_does_not_survive_a_reset(name, options, junk, begin):
    core = double(name, options)
    x = torch.randn(5, 2, F, dtype=torch.float64, requires_grad=True)
    starts = torch.zeros(5, 2, dtype=torch.bool)
    starts[begin] = True
    clean = core.initial_state(2)
    y, end = core(x, type(clean)(*(torch.full_like(leaf, junk) for leaf in clean)), starts, since=begin)
    assert_equal((y, end), core(x[begin:], clean, torch.zeros_like(starts[begin:])))
    if begin:  # what came before the reset has no finite gradient
        return
    y.sum().backward()
    for gradient in [x.grad, *(p.grad for p in core.parameters() if p.grad is not None)]:
        assert gradient.isfinite().all()


@every_core
def test_inputs_may_be_extreme(name, options):
    core = small(name, options)
    x = torch.tensor([300.0, -300.0, 1e4, -1e4]).view(4, 1, 1).expand(4, 2, F).clone().requires_grad_()
    y, end = core(x, core.initial_state(2), torch.zeros(4, 2, dtype=torch.bool))
    y.sum().backward()
    for tensor in (y, *end, x.grad, *(p.grad for p in core.parameters() if p.grad is not None)):
        assert tensor.isfinite().all()


@every_core
def test_a_step_changes_neither_its_state_nor_the_core(name, options):
    core = small(name, options)
    x, state = torch.randn(B, F), random_state(core)
    before = [leaf.clone() for leaf in state]
    first = core.step(x, state)
    assert all(torch.equal(leaf, old) for leaf, old in zip(state, before, strict=True))
    assert_equal(core.step(x, state), first, tolerance=0)


@every_core
def test_the_state_is_what_the_core_says(name, options):
    core = small(name, options)
    _, end = core(*core_inputs(core))
    for state in (core.initial_state(B), end):
        assert state._fields == tuple(core.state_spec)
        assert [tuple(leaf.shape) for leaf in state] == [(B, *shape) for shape in core.state_spec.values()]
        assert {leaf.dtype for leaf in state} == {torch.float32}
    assert core.state_size == sum(leaf[0].numel() for leaf in end)


@every_core
def test_packing_and_unpacking_is_the_identity(name, options):
    core = small(name, options)
    state = random_state(core)
    packed = core.pack(state)
    assert packed.shape == (B, core.state_size)
    again = core.unpack(packed)
    assert type(again) is type(state)
    assert all(torch.equal(leaf, old) for leaf, old in zip(again, state, strict=True))


# Parameters that by design have no gradient: of parts that a variant leaves out but whose weights are kept, so that
# released checkpoints load, and behind an alpha that starts at zero.
GATES = {"gate_input.weight", "gate_input.bias", "gate_memory.weight", "gate_memory.bias", "input_bias", "forget_bias"}
UNUSED_AT_FIRST = {f"{part}.{kind}" for part in ("f2", "f3", "transfer") for kind in ("weight", "bias")}
NO_GRADIENT = {
    "{'preset': 'released'}": UNUSED_AT_FIRST | {"initial_relation"},
    "{'preset': 'released_rl'}": UNUSED_AT_FIRST | {"alpha1", "alpha2", "initial_relation"},
    "{'gated': False}": GATES,
}


@every_core
def test_the_first_gradient_reaches_every_parameter(name, options):
    core = small(name, options)
    y, _ = core(*core_inputs(core))
    (y * torch.randn_like(y)).sum().backward()
    silent = {n for n, p in core.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert {n.removeprefix("cores.stm.") for n in silent} == NO_GRADIENT.get(str(options), set())


@every_core
def test_gradients_flow_back_through_time(name, options):
    if name in ("identity", "memory_layer"):
        pytest.skip("has no memory")
    core = double(name, options)
    x = torch.randn(T, 1, F, dtype=torch.float64, requires_grad=True)
    y, _ = core(x, core.initial_state(1), torch.zeros(T, 1, dtype=torch.bool))
    y[-1].sum().backward()
    assert x.grad[0].abs().sum() > 0


@every_core
def test_a_reset_cuts_the_gradient(name, options):
    core = double(name, options)
    x = torch.randn(T, 1, F, dtype=torch.float64, requires_grad=True)
    starts = torch.zeros(T, 1, dtype=torch.bool)
    starts[4] = True
    core(x, core.initial_state(1), starts)[0][-1].sum().backward()
    assert x.grad[:4].abs().sum() == 0


@every_core
def test_the_seed_decides_the_weights(name, options):
    def weights(seed):
        torch.manual_seed(seed)
        return small(name, options).state_dict()

    first, same, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_core
def test_autocast_leaves_state_and_recurrence_in_full_precision(name, options):
    core = small(name, options)
    x, state, starts = core_inputs(core)
    expected = core(x.bfloat16().float(), state, starts)
    with torch.autocast("cpu", torch.bfloat16):
        got = core(x.bfloat16(), state, starts)
        y, stepped = core.step(x[0].bfloat16(), state)
    assert {got[0].dtype, y.dtype, *(leaf.dtype for leaf in (*got[1], *stepped))} == {torch.float32}
    assert_equal(got, expected, tolerance=0)  # the STM's products are too small here: tests/test_stm.py has large ones


@every_core
@pytest.mark.parametrize("since", [0, 2, -1, -T])
def test_outputs_may_be_asked_for_from_any_step_on(name, options, since):
    core = double(name, options)
    x, starts = sequence(p=0.3)
    state = random_state(core)
    y, end = core(x, state, starts)
    assert_equal(core(x, state, starts, since=since), (y[since:], end))


@every_core
@pytest.mark.parametrize("since", [T, -T - 1])
def test_outputs_of_a_step_that_is_not_there_are_refused(name, options, since):
    core = small(name, options)
    with pytest.raises(ValueError, match=f"since must be a step of the sequence, from {-T} to {T - 1}, got {since}"):
        core(*core_inputs(core), since)


@every_core
def test_saved_weights_give_the_same_core(name, options):
    core, other = small(name, options), small(name, options)
    other.load_state_dict(core.state_dict())
    inputs = core_inputs(core)
    assert_equal(other(*inputs), core(*inputs), tolerance=0)
    assert_equal(copy.deepcopy(core)(*inputs), core(*inputs), tolerance=0)


GATED = {
    *("lstm", "gru", "stm", "rmc", "lstm_stm", "min_gru", "min_lstm", "slstm", "rg_lru", "ffm"),
    *("mamba2", "gla", "mlstm", "weinet", "shm", "gtrxl", "lm2"),
    *("delta_net", "gated_delta_net", "rwkv7", "dnc", "ntm", "titans"),
}
UNGATED = ({"gated": False}, {"gate": "none"})


@every_core
def test_gates_lie_between_zero_and_one_and_change_nothing(name, options):
    core = small(name, options)
    x, state = torch.randn(B, F), random_state(core)
    before = core.step(x, state)
    gates = core.gates(x, state)
    assert bool(gates) == (name in GATED and options not in UNGATED)
    for gate in gates.values():
        assert len(gate) == B
        assert ((gate > 0) & (gate < 1)).all()
    assert_equal(core.step(x, state), before, tolerance=0)


@pytest.mark.parametrize("name", registered_cores())
def test_a_core_needs_an_input_size_alone_and_has_a_natural_width(name):
    core = make_core(name, F)
    y, _ = core(torch.randn(2, 3, F), core.initial_state(3), torch.zeros(2, 3, dtype=torch.bool))
    assert y.shape == (2, 3, core.output_size)


def test_the_output_of_stm_is_128_wide_unless_asked_for():
    assert make_core("stm", F).output_size == 128
    assert make_core("lstm_stm", F).output_size == 2 * 256


@every_core
def test_cores_and_states_can_be_pickled(name, options):
    core = double(name, options)
    x, starts = sequence()
    expected = core(x, core.initial_state(B), starts)
    core, state = pickle.loads(pickle.dumps((core, core.initial_state(B))))
    assert type(state) is type(core.initial_state(B))
    assert_equal(core(x, state, starts), expected)


@pytest.mark.parametrize("name", registered_cores())
def test_gates_are_those_of_the_dtype_of_the_parameters(name):
    core = double(name)
    x = torch.randn(B, F)
    with torch.autocast("cpu", torch.bfloat16):
        gates = core.gates(x, core.initial_state(B))
    assert all(gate.dtype == torch.float64 for gate in gates.values())


@every_core
def test_one_step_is_exported_with_resets_and_all(name, options):
    """What a rollout calls at every step has no branch on data, so that ``torch.export`` takes it."""
    core = small(name, options).eval()
    x, state = torch.randn(1, B, F), random_state(core)
    exported = torch.export.export(core, (x, state, torch.zeros(1, B, dtype=torch.bool))).module()
    for starts in (torch.zeros(1, B, dtype=torch.bool), torch.ones(1, B, dtype=torch.bool)):
        expected, _ = core(x, state, starts)
        torch.testing.assert_close(exported(x, state, starts)[0], expected)


def test_the_gates_of_an_lstm_are_what_their_names_say():
    core, x = make_core("lstm", F, hidden_size=3), torch.randn(2, F)
    state = random_state(core, 2)
    gates, (_, after) = core.gates(x, state), core.step(x, state)
    _, more = core.step(x, state._replace(cell=state.cell + 1))
    torch.testing.assert_close(more.cell - after.cell, gates["forget_gate"])
    torch.testing.assert_close(after.hidden, gates["output_gate"] * after.cell.tanh())


def test_the_gates_of_a_gru_are_what_their_names_say():
    core, x = make_core("gru", F, hidden_size=3), torch.randn(2, F)
    state = random_state(core, 2)
    gates, (_, after) = core.gates(x, state), core.step(x, state)
    weight_ih, weight_hh, bias_ih, bias_hh = (p.chunk(3)[2] for p in core.gru.parameters())
    new = (x @ weight_ih.T + bias_ih + gates["reset_gate"] * (state.hidden @ weight_hh.T + bias_hh)).tanh()
    torch.testing.assert_close(after.hidden, torch.lerp(new, state.hidden, gates["update_gate"]))


# ------------------------------------------------------------------------------------------------ what is refused

WRONG = {
    "starts one step short": lambda x, state, starts: (x, state, starts[:-1]),
    "starts of one step": lambda x, state, starts: (x, state, starts[0]),
    "starts batch first": lambda x, state, starts: (x, state, starts.T),
    "a state of one row": lambda x, state, starts: (x, type(state)(*(leaf[:1] for leaf in state)), starts),
    "a state of one row more": lambda x, state, starts: (
        x,
        type(state)(*(torch.cat([leaf, leaf[:1]]) for leaf in state)),
        starts,
    ),
    "no step": lambda x, state, starts: (x[:0], state, starts[:0]),
    "no row": lambda x, state, starts: (x[:, :0], type(state)(*(leaf[:0] for leaf in state)), starts[:, :0]),
    "another width": lambda x, state, starts: (x[..., :-1], state, starts),
    "one step without a time axis": lambda x, state, starts: (x[0], state, starts[0]),
    "a plain tuple as state": lambda x, state, starts: (x, tuple(state), starts),
    "no state": lambda x, state, starts: (x, None, starts),
}


@every_core
@pytest.mark.parametrize("length", [1, T])
@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused_in_one_sentence(name, options, change, length):
    core = small(name, options)
    x, state, starts = core_inputs(core)
    wrong = change(x[:length], state, starts[:length])
    with pytest.raises(ValueError, match=r"^(x|starts|the state|'\w+' of the state) must be") as error:
        core(*wrong)
    assert "\n" not in str(error.value)


def test_the_state_of_another_core_is_refused():
    x, starts = sequence(torch.float32)
    with pytest.raises(ValueError, match=r"hidden.*LSTMState"):
        make_core("gru", F)(x, make_core("lstm", F).initial_state(B), starts)
