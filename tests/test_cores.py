"""The contract of a memory core, checked for every registered core."""

import copy
import pickle
from collections import namedtuple
from typing import NamedTuple

import pytest
import torch
from torch import nn

from relmem.agents import MemoryCore, StackedCore, check_core, make_core, register_core, registered_cores
from relmem.agents.cores import core_options
from relmem.agents.cores.registry import CORES

SMALL = {
    "lstm": {"hidden_size": 8},
    "gru": {"hidden_size": 8},
    "stm": {"queries": 2, "item_size": 5, "relation_size": 3},
    "rmc": {"slots": 3, "heads": 2, "head_size": 4},
    "lstm_stm": {"lstm_size": 8, "queries": 2, "item_size": 5, "relation_size": 3},
}
VARIANTS = [(name, {}) for name in registered_cores()] + [
    *(("stm", {"preset": preset}) for preset in ("paper", "released", "released_rl")),
    ("stm", {"gated": False}),
    *(("rmc", options) for options in ({"preset": "l0sg"}, {"gate": "memory", "blocks": 2}, {"gate": "none"})),
    ("lstm_stm", {"preset": "released_rl"}),
]
every_core = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
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


def core_inputs(core):
    x, starts = sequence(torch.float32)
    return x, core.initial_state(B), starts


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
    if name == "identity":
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
    products_in_bfloat16 = name == "rmc"  # the STM's are too small here: tests/test_stm.py has large ones
    assert_equal(got, expected, tolerance=0.02 if products_in_bfloat16 else 0)


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


@every_core
def test_gates_lie_between_zero_and_one_and_change_nothing(name, options):
    core = small(name, options)
    x, state = torch.randn(B, F), random_state(core)
    before = core.step(x, state)
    gates = core.gates(x, state)
    gated = name in ("lstm", "gru", "lstm_stm") or (name == "stm" and options.get("gated", True))
    assert bool(gates) == (gated or (name == "rmc" and options.get("gate") != "none"))
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


# ------------------------------------------------------------------------------------------------ stacks


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


# ------------------------------------------------------------------------------------------------ registry


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lstn", {}, "unknown core 'lstn': did you mean 'lstm'?"),
        ("lstm", {"hiden_size": 3}, "unknown option of core 'lstm' 'hiden_size': did you mean 'hidden_size'?"),
        ("stm", {"querys": 3}, "did you mean 'queries'?"),
        ("lstm_stm", {"lstm_sise": 3}, "did you mean 'lstm_size'?"),
        ("lstm_stm", {"preset": "paperr"}, "did you mean 'paper'?"),
    ],
)
def test_what_does_not_exist_is_named_with_its_nearest_neighbour(name, options, message):
    with pytest.raises(ValueError) as error:
        make_core(name, F, **options)
    assert message in str(error.value)


@pytest.mark.parametrize("name", registered_cores())
@pytest.mark.parametrize("value", [-3, 0, float("nan"), 1.5, True])
def test_bad_numbers_are_refused(name, value):
    numbers = [key for key, p in core_options(name).items() if isinstance(p.default, int) and p.default is not True]
    for option in numbers:
        with pytest.raises(ValueError, match=f"{option} must be an integer of at least 1"):
            make_core(name, F, **{option: value})
    for sizes in ((value, None), (F, value)):
        with pytest.raises(ValueError, match="must be an integer of at least 1"):
            make_core(name, *sizes)


def test_a_core_of_a_module_that_is_not_imported_yet(tmp_path, monkeypatch):
    (tmp_path / "cores_of_mine.py").write_text(
        "from relmem.agents import register_core\n"
        "from relmem.agents.cores import GRUCore\n"
        "@register_core('mine')\n"
        "class Mine(GRUCore):\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert type(make_core("cores_of_mine:mine", F, hidden_size=4)).__name__ == "Mine"
    finally:
        CORES._factories.pop("mine", None)
    for name in ("cores_of_yours:mine", "./cores_of_yours:mine", ":mine"):
        with pytest.raises(ValueError, match=f"core '{name}' needs a module that cannot be imported"):
            make_core(name, F)
    with pytest.raises(ValueError, match=r'a core needs a name: @register_core\("name"\)'):
        register_core(type(make_core("gru", F)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            "input_size, output_size=None, **options",
            r"must name its options one by one, instead of taking '\*\*options'",
        ),
        ("input_size, output_size=None, *sizes", r"must name its options one by one, instead of taking '\*sizes'"),
        ("input_size, output_size, rate", "option 'rate' of core 'odd' must have a default"),
        ("input_size, width=8", "core 'odd' must take input_size and output_size before its options"),
    ],
)
def test_options_have_names_and_defaults(parameters, message):
    with pytest.raises(ValueError, match=message):
        register_core("odd")(eval(f"lambda {parameters}: None"))
    assert "odd" not in registered_cores()


def test_a_core_from_outside_the_package_is_a_core_like_any_other():
    @register_core("mean_of_inputs")
    class Mean(MemoryCore):
        def __init__(self, input_size, output_size=None, rate: float = 0.5):
            super().__init__(input_size, output_size or input_size, namedtuple("S", ["mean"]), ((input_size,),))
            self.rate = rate
            self.out = nn.Identity() if output_size is None else nn.Linear(input_size, output_size)

        def step(self, x, state):
            mean = torch.lerp(state.mean, x, self.rate)
            return self.out(mean), type(state)(mean)

    try:
        core = make_core("mean_of_inputs", F, rate=0.25).double()
        x, starts = sequence()
        state = random_state(core)
        assert_equal(core(x, state, starts), loop_of_steps(core, x, state, starts))
        with pytest.raises(ValueError, match="did you mean 'rate'"):
            make_core("mean_of_inputs", F, rat=1)
        with pytest.raises(ValueError, match="registered already"):
            register_core("mean_of_inputs")(type(make_core("gru", F)))
    finally:
        CORES._factories.pop("mean_of_inputs")


class Lean(NamedTuple):
    total: torch.Tensor


class LeanCore(MemoryCore):
    """A core whose ``forward`` takes no more than inputs, state and starts."""

    def __init__(self, input_size, output_size=None):
        super().__init__(input_size, output_size or input_size, Lean, ((input_size,),))
        self.out = nn.Linear(input_size, self.output_size)

    def step(self, x, state):
        total = state.total + x
        return self.out(total), Lean(total)

    def forward(self, x, state, starts):
        totals = []
        for x_t, starts_t in zip(x, starts, strict=True):
            state = Lean(self.reset(state, starts_t).total + x_t)
            totals.append(state.total)
        return self.out(torch.stack(totals)), state


class LeanerCore(LeanCore):
    """One that calls the other, with an option of its own."""

    def forward(self, x, state, starts, scale=1.0):
        y, state = super().forward(x, state, starts)
        return scale * y, state


class Mixin:
    def forward(self, x, state, starts):
        return super().forward(x, state, starts)


class MixedCore(Mixin, LeanCore):
    pass


@pytest.mark.parametrize("core", [LeanCore, LeanerCore, MixedCore])
def test_every_such_core_keeps_the_contract(core):
    check_core(core(F, OUT))


def test_a_forward_may_leave_out_since():
    core = LeanCore(F, OUT)
    x, starts = sequence(torch.float32)
    y, end = core(x, core.initial_state(B), starts)
    doubled = LeanerCore(F, OUT)
    doubled.load_state_dict(core.state_dict())
    torch.testing.assert_close(doubled(x, core.initial_state(B), starts, scale=2.0, since=-2)[0], 2 * y[-2:])
    for since in (-3, 4):
        last, same_end = core(x, core.initial_state(B), starts, since=since)
        assert torch.equal(last, y[since:]) and torch.equal(end.total, same_end.total)
    with pytest.raises(ValueError, match="since must be a step of the sequence"):
        core(x, core.initial_state(B), starts, since=T)
    check_core(StackedCore({"first": LeanCore(F, 3), "second": make_core("lstm", 3, OUT)}))


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
