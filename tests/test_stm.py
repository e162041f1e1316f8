"""STM: parity with the naive version, sizes, presets and options."""

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from relmem.agents import make_core
from relmem.agents.cores.stm import sequence
from relmem.agents.cores.stm.core import AUTOCAST_ITEM_SIZE
from relmem.agents.cores.stm.variants import PRESETS
from tests.naive.stm import naive_stm_sequence

SIZES = {"queries": 3, "item_size": 5, "relation_size": 4}
CHANGES = [
    {"gated": False},
    {"squash_write": False},
    {"item_update": "sum"},
    {"item_update": "sum", "sigmoid_gates": False},
    {"normalized_input": False},
    {"input_skip": False},
    {"write": "auto"},
    {"mix": "rows"},
    {"qkv_norm": "joint"},
    {"qkv_norm": "columns"},
    {"read_axis": "value"},
    {"relation_update": "add"},
    {"relation_update": "leak"},
    {"relation_update": "leak", "transfer_from": "accumulated"},
    {"relation_update": "add", "transfer_from": "accumulated"},
    {"relation_update": "rebuild"},
    {"transfer_from": "accumulated"},
    {"transfer_from": "accumulated", "relation_update": "rebuild"},
    {"readout_norm": False},
    {"readout_mlp": False},
    {"learned_initial_state": False},
    {"glorot_init": True},
    {"fixed_alpha2": 0.5, "fixed_alpha3": 0.7},
]


def stm(preset="default", output_size=3, input_size=6, **options):
    """A small core in double precision, every parameter of which matters: none of them is zero."""
    core = make_core("stm", input_size, output_size, preset=preset, **{**SIZES, **options}).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return core


STARTS = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]]).bool()


def outcome(core, run, x, begin, starts):
    """Outputs, last memories, and the gradients of every parameter, of the inputs and of the first memories."""
    sources = dict(core.named_parameters()) | {"x": x} | begin._asdict()
    y, end = run(core, x, begin, starts)
    outputs = {"y": y} | {f"last {name}": leaf for name, leaf in end.items()}
    generator = torch.Generator().manual_seed(1)
    loss = sum((v * torch.randn(v.shape, generator=generator, dtype=torch.float64)).sum() for v in outputs.values())
    gradients = torch.autograd.grad(loss, sources.values(), allow_unused=True, materialize_grads=True)
    return outputs | {f"gradient of {name}": gradient for name, gradient in zip(sources, gradients, strict=True)}


def fast(core, x, begin, starts):
    y, end = core(x, begin, starts)
    return y, end._asdict()


def naive(core, x, begin, starts):
    y, ends = naive_stm_sequence(core, x, begin, starts)
    return y, {name: torch.stack([end[i] for end in ends]) for i, name in enumerate(begin._fields)}


def begin_with(core, batch):
    """Random first memories."""
    like = core.initial_state(batch)
    return type(like)(*(torch.randn_like(leaf).requires_grad_() for leaf in like))


def assert_close(got, expected, tolerance):
    """Everything within ``tolerance`` of the largest number of its tensor."""
    for name, want in expected.items():
        scale = want.abs().max().clamp(min=1.0)
        error = (got[name] - want).abs().max() / scale
        assert error <= tolerance, f"{name} is off by {error:.1e} of its largest number"


def assert_parity(core, starts=STARTS, tolerance=1e-9):
    """Values, memories and gradients of the core are those of the naive version, with resets on the way."""
    x = torch.randn(*starts.shape, core.input_size, dtype=torch.float64, requires_grad=True)
    begin = begin_with(core, starts.shape[1])
    assert_close(outcome(core, fast, x, begin, starts), outcome(core, naive, x, begin, starts), tolerance)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("gated", [True, False])
def test_presets_match_the_naive_version(preset, gated):
    assert_parity(stm(preset, gated=gated))


@pytest.mark.parametrize("preset", PRESETS)
def test_episodes_that_all_begin_together_match_the_naive_version(preset):
    starts = STARTS.clone()
    starts[0] = True
    assert_parity(stm(preset), starts)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_backward_pass_that_computes_again_matches_the_naive_version(preset, monkeypatch):
    monkeypatch.setattr(sequence, "KEEP", 0)
    assert_parity(stm(preset))


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_options_match_the_naive_version(change):
    assert_parity(stm(**change))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 7, 2), (4, 2, 1), (2, 3, 6)], ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_match_the_naive_version(preset, sizes):
    assert_parity(stm(preset, **dict(zip(SIZES, sizes, strict=True))))


@st.composite
def cases(draw):
    """An STM in double precision, and where episodes begin in its sequences [T, B]."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    options = draw(st.fixed_dictionaries({name: st.integers(1, 5) for name in SIZES}))
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=2)):
        options |= change
    try:
        core = stm(draw(st.sampled_from(sorted(PRESETS))), **options)
    except ValueError:  # options that exclude each other
        reject()
    shape = draw(st.integers(2, 7)), draw(st.integers(1, 3))
    return core, torch.rand(shape) < draw(st.sampled_from([0.0, 0.2, 1.0]))


@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_any_core_and_any_resets_match_the_naive_version(case):
    assert_parity(*case)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_long_sequence_matches_the_naive_version(preset):
    assert_parity(stm(preset, queries=2, item_size=3), torch.rand(70, 2) < 0.05, tolerance=1e-8)


@pytest.mark.parametrize("preset", PRESETS)
def test_blocks_of_relations_join_without_a_seam(preset, monkeypatch):
    monkeypatch.setattr(sequence, "BLOCK", 2 * 3 * 5 * 5)
    assert_parity(stm(preset))


@pytest.mark.parametrize(
    ("products", "of_values", "of_gradient"),
    [(torch.float32, 1e-5, 1e-4), (torch.bfloat16, 0.02, 0.1)],
    ids=["float32", "bfloat16"],
)
@pytest.mark.parametrize("preset", PRESETS)
def test_single_precision_stays_close_to_double(preset, products, of_values, of_gradient):
    sizes = {"queries": 4, "item_size": AUTOCAST_ITEM_SIZE, "relation_size": 8}
    double = make_core("stm", 10, 8, preset=preset, alpha_start=0.1, **sizes).double()
    core = make_core("stm", 10, 8, preset=preset, **sizes)
    core.load_state_dict(double.state_dict())
    starts = torch.rand(8, 4) < 0.1
    x, begin = torch.randn(8, 4, 10, dtype=torch.float64, requires_grad=True), double.initial_state(4)
    begin = type(begin)(*(leaf.detach().requires_grad_() for leaf in begin))
    expected = outcome(double, fast, x, begin, starts)
    single = type(begin)(*(leaf.detach().float().requires_grad_() for leaf in begin))
    with torch.autocast("cpu", torch.bfloat16, enabled=products == torch.bfloat16):
        got = outcome(core, fast, x.detach().float().requires_grad_(), single, starts)
    assert {leaf.dtype for leaf in got.values()} == {torch.float32}
    gradients = [name for name in expected if name.startswith("gradient")]
    parts = {name: [name] for name in expected if name not in gradients} | {"gradient as a whole": gradients}
    for part, names in parts.items():
        want, found = (torch.cat([tensors[name].flatten().double() for name in names]) for tensors in (expected, got))
        error = (found - want).norm() / want.norm()
        assert error <= (of_gradient if names is gradients else of_values), f"{part} is off by {error:.1e}"


def test_the_last_output_alone_has_the_gradients_of_a_full_run():
    core = stm()
    x = torch.randn(5, 3, core.input_size, dtype=torch.float64, requires_grad=True)
    begin = begin_with(core, 3)
    last = outcome(core, lambda *inputs: (core(*inputs[1:], since=-1)[0], {}), x, begin, STARTS)
    full = outcome(core, lambda *inputs: (core(*inputs[1:])[0][-1:], {}), x, begin, STARTS)
    assert_close(last, full, 1e-9)


@pytest.mark.parametrize(
    ("input_size", "output_size", "options", "count"),
    [
        (34, 32, {"queries": 8, "item_size": 96, "relation_size": 96}, 1_170_965),
        (40, 8, {"queries": 8, "item_size": 128, "relation_size": 96}, 2_012_813),
        (24, 22, {"queries": 8, "item_size": 128, "relation_size": 96}, 2_010_395),
        (
            34,
            32,
            {"queries": 16, "item_size": 72, "relation_size": 72, "fixed_alpha1": 0.0, "fixed_alpha2": 0.0},
            684_259,
        ),
    ],
)
def test_the_released_models_have_their_number_of_parameters(input_size, output_size, options, count):
    core = make_core("stm", input_size, output_size, preset="released", **options)
    assert sum(parameter.numel() for parameter in core.parameters()) == count


def test_the_documentation_shows_the_presets():
    page = Path(__file__).parents[1].joinpath("docs/stm.md").read_text(encoding="utf-8")
    heads, _, *rows = page[page.index("| option |") :].splitlines()
    names = re.findall(r"`(\w+)`", heads)
    assert sorted(names) == sorted(PRESETS)
    shown = {cells[0].strip("`"): cells[1:] for cells in (row.strip("| ").split(" | ") for row in rows)}
    words = {True: "yes", False: "no"}
    for i, name in enumerate(names):
        options = {key: value for key, value in vars(PRESETS[name]).items() if not key.startswith("fixed_")}
        assert {key: cells[i] for key, cells in shown.items()} == {
            key: words[value] if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value
            for key, value in options.items()
        }


@pytest.mark.parametrize("preset", PRESETS)
def test_an_option_wins_over_the_preset_and_leaves_the_rest_of_it(preset):
    plain, changed = stm(preset).variant, stm(preset, gated=False).variant
    assert changed.gated is False
    assert {**vars(changed), "gated": plain.gated} == vars(plain)


def test_only_the_released_rl_cell_forgets_its_relations():
    for preset in PRESETS:
        spec = stm(preset).state_spec
        assert spec["item"] == (5, 5)
        assert spec.get("relation") == (None if preset == "released_rl" else (3, 5, 5))


def test_a_fixed_alpha_is_kept_and_not_learned():
    core = make_core("stm", 6, preset="released", fixed_alpha1=0.25, **SIZES)
    assert "alpha1" not in dict(core.named_parameters())
    assert core.state_dict()["alpha1"].item() == 0.25


def test_the_recommended_memories_stay_bounded():
    core = make_core("stm", 6, queries=4, item_size=16)
    state, norms = core.initial_state(2), []
    with torch.no_grad():
        for _ in range(1500):
            _, state = core.step(torch.randn(2, 6), state)
            norms.append([leaf.norm().item() for leaf in state])
    early, late = torch.tensor(norms)[100:400].amax(dim=0), torch.tensor(norms)[1200:].amax(dim=0)
    assert (late < 1.5 * early).all()


def test_the_decay_averages_over_the_past_at_several_rates():
    core = make_core("stm", 6, **SIZES)
    keep = core.decay.sigmoid()
    assert ((keep > 0) & (keep < 1)).all()
    assert (keep.diff() > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "relesed"}, "unknown preset 'relesed': did you mean 'released'?"),
        ({"write": "heteros"}, "unknown write 'heteros': did you mean 'hetero'?"),
        ({"relation_update": "decays"}, "did you mean 'decay'?"),
        ({"qkv_norm": 3}, "qkv_norm must be one of joint, columns, items or null, got 3"),
        ({"gated": 1}, "gated must be true or false or null, got 1"),
        ({"alpha_start": float("nan")}, "alpha_start must be a number or null, got nan"),
        ({"fixed_alpha3": True}, "fixed_alpha3 must be a number or null, got True"),
        ({"sigmoid_gates": False}, "sigmoid_gates has no effect where item_update is 'average'"),
        ({"fixed_alpha1": 0.0}, "fixed_alpha1 has no effect where relation_update is 'decay'"),
        (
            {"preset": "released_rl", "fixed_alpha2": 0.0},
            "fixed_alpha2 has no effect where relation_update is 'rebuild'",
        ),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_sentence(options, message):
    with pytest.raises(ValueError) as error:
        make_core("stm", 6, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", ["queries", "item_size", "relation_size"])
@pytest.mark.parametrize("value", [-3, 0, float("nan"), 1.5, True, "4", None])
def test_bad_sizes_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} must be an integer of at least 1"):
        make_core("stm", 6, **{option: value})


def test_how_a_memory_starts():
    core = make_core("stm", 6)
    assert (core.input_bias.item(), core.forget_bias.item()) == (0.0, 1.0)
    steps = 1 / (1 - core.decay.sigmoid())
    torch.testing.assert_close(steps[[0, -1]], torch.tensor([2.0, 32.0]))
    assert core.f1.bias.any() and not make_core("stm", 6, preset="released_rl").f1.bias.any()
