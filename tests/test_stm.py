"""STM: parity with the naive version, sizes, presets and options."""

import pytest
import torch
from naive_stm import naive_stm_sequence

from relmem.agents import make_core
from relmem.agents.cores.stm_variants import PRESETS

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


def assert_parity(core):
    """Values, states and gradients of the core are those of the naive version, with resets on the way."""
    x = torch.randn(5, 3, core.input_size, dtype=torch.float64, requires_grad=True)
    starts = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]]).bool()
    begin = core.initial_state(3)
    begin = type(begin)(*(torch.randn_like(leaf) for leaf in begin))
    y, end = core(x, begin, starts)
    expected_y, expected_ends = naive_stm_sequence(core, x, begin, starts)
    torch.testing.assert_close(y, expected_y, rtol=1e-9, atol=1e-9)
    for b, (item, relation) in enumerate(expected_ends):
        torch.testing.assert_close(end.item[b], item, rtol=1e-9, atol=1e-9)
        if hasattr(end, "relation"):
            torch.testing.assert_close(end.relation[b], relation, rtol=1e-9, atol=1e-9)

    weights = torch.randn_like(y)
    sources = dict(core.named_parameters()) | {"x": x}
    loss = (y * weights).sum() + end.item.square().sum()
    expected_loss = (expected_y * weights).sum() + sum(item.square().sum() for item, _ in expected_ends)
    gradients = torch.autograd.grad(loss, sources.values(), allow_unused=True, materialize_grads=True)
    expected = torch.autograd.grad(expected_loss, sources.values(), allow_unused=True, materialize_grads=True)
    for name, got, want in zip(sources, gradients, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("gated", [True, False])
def test_presets_match_the_naive_version(preset, gated):
    assert_parity(stm(preset, gated=gated))


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_options_match_the_naive_version(change):
    assert_parity(stm(**change))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 7, 2), (4, 2, 1), (2, 3, 6)], ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_match_the_naive_version(preset, sizes):
    assert_parity(stm(preset, **dict(zip(SIZES, sizes, strict=True))))


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
        ({"preset": "relesed"}, "unknown preset of core 'stm' 'relesed': did you mean 'released'?"),
        ({"write": "heteros"}, "unknown write 'heteros': did you mean 'hetero'?"),
        ({"relation_update": "decays"}, "did you mean 'decay'?"),
        ({"qkv_norm": 3}, "unknown qkv_norm '3': choose from joint, columns, items"),
        ({"gated": 1}, "gated must be true or false, got 1"),
        ({"alpha_start": float("nan")}, "alpha_start must be a finite number, got nan"),
        ({"fixed_alpha3": True}, "fixed_alpha3 must be a finite number, got True"),
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
