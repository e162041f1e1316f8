"""Cores by name, their options, and cores from outside the package."""

from collections import namedtuple
from typing import NamedTuple

import pytest
import torch
from torch import nn

from relmem.agents import MemoryCore, StackedCore, check_core, make_core, register_core, registered_cores
from relmem.agents.cores import core_options
from relmem.agents.cores.registry import CORES
from tests.small_cores import OUT, B, F, T, assert_equal, loop_of_steps, random_state, sequence


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
    numbers = [key for key, p in core_options(name).items() if type(p.default) is int]
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
        with pytest.raises(ValueError, match=f"core '{name}' needs the module .*import fails"):
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
