"""RMT and ARMT: against the code of ARMT's authors and the loop over steps; naive versions are in test_windows.py."""

import pytest
import torch

from relmem.agents import make_core
from relmem.agents.cores import rmt
from tests.golden import load
from tests.small_cores import assert_equal, double, loop_of_steps

both = pytest.mark.parametrize("name", ["rmt", "armt"])


@both
def test_they_give_the_numbers_of_the_authors_of_armt(name, monkeypatch):
    monkeypatch.setattr(rmt, "EPSILON", 1e-12)
    golden = load(f"golden/{name}")
    tokens, width = golden["memory"].shape
    options = {"key_size": len(golden["model.layers.0.W_mk.weight"])} if name == "armt" else {}
    core = make_core(name, width, hidden_size=width, heads=2, layers=2, segment=3, tokens=tokens, **options).double()
    weights = {key: torch.zeros_like(value) for key, value in core.state_dict().items() if "places" in key}
    weights |= {"embedding.weight": torch.eye(width), "embedding.bias": torch.zeros(width), "memory": golden["memory"]}
    weights |= {f"norm.{kind}": golden[f"model.norm.{kind}"] for kind in ("weight", "bias")}
    for layer in range(2):
        ours, theirs = f"layers.{layer}", f"model.layers.{layer}" + (".layer" if name == "armt" else "")
        parts = golden[f"{theirs}.self_attn.in_proj_weight"].chunk(3)
        weights |= {f"{ours}.{kind}.weight": part for kind, part in zip(("query", "key", "value"), parts, strict=True)}
        weights[f"{ours}.merge.weight"] = golden[f"{theirs}.self_attn.out_proj.weight"]
        for kind in ("weight", "bias"):
            for part, other in (("norm", "norm1"), ("mlp_norm", "norm2"), ("mlp.0", "linear1"), ("mlp.2", "linear2")):
                weights[f"{ours}.{part}.{kind}"] = golden[f"{theirs}.{other}.{kind}"]
        for part, other in (("query", "mq"), ("key", "mk"), ("value", "mv"), ("strength", "mb")) if options else ():
            weights[f"associations.{layer}.{part}.weight"] = golden[f"model.layers.{layer}.W_{other}.weight"]
        if options:
            weights[f"associations.{layer}.strength.bias"] = golden[f"model.layers.{layer}.W_mb.bias"]
    core.load_state_dict(weights)
    x = golden["x"].transpose(0, 1)
    y, _ = core(x, core.initial_state(x.shape[1]), torch.zeros(x.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(y.transpose(0, 1), golden["y"], rtol=1e-8, atol=1e-8)


@both
@pytest.mark.parametrize("length", [63, 64, 65, 300])
def test_segments_are_a_loop_of_steps(name, length):
    core = double(name, {"segment": 16})
    starts = torch.rand(length, 4) < 0.03
    x = torch.randn(length, 4, core.input_size, dtype=torch.float64)
    _, state = core(x[:7], core.initial_state(4), starts[:7])  # in the middle of a segment
    with torch.no_grad():
        assert_equal(core(x, state, starts), loop_of_steps(core, x, state, starts), tolerance=1e-9)


@both
def test_a_step_sees_its_segment_and_the_ones_before_it_and_no_episode_but_its_own(name):
    core = double(name, {"key_size": 8} if name == "armt" else {})
    x = torch.randn(10, 1, core.input_size, dtype=torch.float64, requires_grad=True)
    starts = torch.zeros(10, 1, dtype=torch.bool)
    starts[3] = True
    y, _ = core(x, core.initial_state(1), starts)
    reach = torch.autograd.grad(y[8].sum(), x)[0].abs().sum((1, 2)) > 0
    assert reach.tolist() == [False] * 3 + [True] * 6 + [False]


def test_what_is_written_again_is_overwritten():
    core = make_core("armt", 4, hidden_size=8, heads=2, tokens=1, key_size=8).double()
    memory = core.associations[0]
    with torch.no_grad():
        memory.strength.weight.zero_()
        memory.strength.bias.fill_(50.0)  # all of the old value gives way
        token, nothing = torch.randn(1, 1, 8).double(), torch.zeros(1, 48, 8).double()
        association, normaliser = memory.write(token, nothing, nothing[..., 0])
        found = memory.read(rmt.dpfp(memory.key(token)), association, normaliser)
        torch.testing.assert_close(found, memory.value(token), rtol=1e-3, atol=1e-3)
        again = memory.write(token, association, normaliser)
        torch.testing.assert_close(again[0], association, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(again[1], normaliser, rtol=1e-3, atol=1e-3)


@both
def test_heads_must_divide_the_width(name):
    with pytest.raises(ValueError, match="heads must divide hidden_size 11: 4 do not, 1 would"):
        make_core(name, 3, hidden_size=11)
