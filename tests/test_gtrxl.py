"""GTrXL: against a public implementation and the loop over steps; its naive version is in test_windows.py."""

import pytest
import torch

from relmem.agents import make_core
from relmem.agents.cores.attention import sinusoids
from tests.golden import load
from tests.small_cores import assert_equal, loop_of_steps, random_state


def exact(input_size, output_size=None, **options):
    """A core in double precision, its sinusoids too, with every parameter away from its special start."""
    core = make_core("gtrxl", input_size, output_size, **options).double()
    core.sinusoids = sinusoids(*(n - 1 if i == 0 else n for i, n in enumerate(core.sinusoids.shape)))
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return core


def partly_filled(core, batch_size):
    state = random_state(core, batch_size)
    return state._replace(filled=(torch.rand(state.filled.shape) < 0.7).double().sort(dim=1).values)


def test_it_gives_the_numbers_of_a_public_implementation():
    golden = load("golden/gtrxl")
    window, batch, width = golden["memory"].shape
    core = exact(width, hidden_size=width, heads=len(golden["u"]), window=window, mlp_size=len(golden["mlp.0.bias"]))
    key, value = golden["attention.attention_kv.weight"].chunk(2)
    weights = {"key.weight": key, "value.weight": value, "query.weight": golden["attention.attention_q.weight"]}
    weights |= {"merge.weight": golden["attention.project.weight"], "content_bias": golden["u"]}
    weights |= {"position.weight": golden["attention.project_pos.weight"], "position_bias": golden["v"]}
    for i, (gate, norm) in enumerate((("attention_gate", "norm"), ("mlp_gate", "mlp_norm"))):
        of = {name: golden[f"gates.{i}.{name}.weight"] for name in ("Wr", "Wz", "Wg", "Ur", "Uz", "Ug")}
        weights[f"{gate}.of_y.weight"] = torch.cat([of["Wr"], of["Wz"], of["Wg"]])
        weights[f"{gate}.of_x.weight"] = torch.cat([of["Ur"], of["Uz"]])
        weights |= {f"{gate}.of_kept.weight": of["Ug"], f"{gate}.bias": golden[f"gates.{i}.bg"]}
        weights |= {f"{norm}.{kind}": golden[f"norms.{i}.{kind}"] for kind in ("weight", "bias")}
    weights |= {name: array for name, array in golden.items() if name.startswith("mlp.")}
    core.load_state_dict(weights)
    state = type(core.initial_state(1))(core.norm(golden["memory"]).transpose(0, 1), torch.ones(batch, window).double())
    y, _ = core(golden["x"], state, torch.zeros(golden["x"].shape[:2], dtype=torch.bool))
    torch.testing.assert_close(y, golden["y"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("window", [3, 80])
@pytest.mark.parametrize("length", [63, 64, 65, 300])
def test_chunks_are_a_loop_of_steps(length, window):
    core = exact(3, 2, hidden_size=4, heads=2, window=window, mlp_size=3)
    x, starts = torch.randn(length, 4, 3, dtype=torch.float64), torch.rand(length, 4) < 0.03
    state = partly_filled(core, 4)
    y, end = loop_of_steps(core, x, state, starts)
    for since in (0, 17, -1):
        assert_equal(core(x, state, starts, since=since), (y[since:], end))


def test_nothing_is_seen_beyond_the_window():
    core = exact(3, hidden_size=4, heads=2, window=5)
    x = torch.randn(12, 1, 3, dtype=torch.float64, requires_grad=True)
    y, _ = core(x, core.initial_state(1), torch.zeros(12, 1, dtype=torch.bool))
    reach = torch.autograd.grad(y[-1].sum(), x)[0].abs().sum((1, 2)) > 0
    assert reach.tolist() == [False] * 6 + [True] * 6


@pytest.mark.parametrize("junk", [float("inf"), float("nan")])
def test_what_is_ruined_does_not_reach_beyond_a_reset_through_another_layer(junk):
    core = make_core("gtrxl", 3, hidden_size=4, heads=2, window=4, layers=2).double()
    x, starts = torch.randn(6, 2, 3, dtype=torch.float64), torch.zeros(6, 2, dtype=torch.bool)
    starts[3] = True
    clean = core.initial_state(2)
    got = core(x, type(clean)(*(torch.full_like(leaf, junk) for leaf in clean)), starts, since=3)
    assert_equal(got, core(x[3:], clean, starts[:3]))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads must divide hidden_size 9: 4 do not, 3 would"):
        make_core("gtrxl", 3, hidden_size=9)


def test_gates_that_are_shut_hand_on_the_input():
    core, x = exact(6, hidden_size=6, heads=2, window=3), torch.randn(2, 6, dtype=torch.float64)
    state = partly_filled(core, 2)
    with torch.no_grad():
        core.attention_gate.bias.fill_(1e3)
        gates, h = core.gates(x, state), core._between(*core._attended(x, state)[:2])[0]
        assert gates["attention_update_gate"].max() < 1e-9 < gates["mlp_update_gate"].min()
        torch.testing.assert_close(h.squeeze(1), x)
        core.mlp_gate.bias.fill_(1e3)
        torch.testing.assert_close(core.step(x, state)[0], x)
