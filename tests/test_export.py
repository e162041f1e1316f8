"""Agents as ONNX and as programs of torch.export: what other programs run is what the policy computes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from small_cores import SMALL

from relmem.agents import A3C, MemoryActorCriticPolicy, MemoryPPO, StackedCore, load, make_core, registered_cores
from relmem.agents.cores.identity import IdentityCore
from relmem.agents.export import STEPS, TOLERANCE, export_onnx, export_torch
from relmem.agents.normalization import normalize
from relmem.cli import main
from relmem.envs import make_vec_env

VECTOR, IMAGE, TWO = spaces.Box(-1, 1, (3,)), spaces.Box(0, 255, (1, 36, 36), np.uint8), spaces.Discrete(2)
DICT = spaces.Dict(image=IMAGE, number=spaces.Discrete(3), vector=spaces.Box(-np.inf, np.inf, (2,), np.float64))
PAGE = (Path(__file__).parents[1] / "docs" / "export.md").read_text(encoding="utf-8")
TINY = {name: dict(layers=1) for name in ("rmt", "armt")} | {name: dict(read_heads=1) for name in ("dnc", "ntm")}


def policy(observation_space=VECTOR, action_space=TWO, core="gru"):
    options = {"core": core, "core_kwargs": SMALL.get(core)}
    made = MemoryActorCriticPolicy(observation_space, action_space, lambda _: 1e-3, **options)
    with torch.no_grad():
        for parameter in made.parameters():  # away from special starts, such as heads that are all but zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("names", [registered_cores()[i::7] for i in range(7)], ids=" ".join)
def test_every_core_becomes_onnx(names, tmp_path):
    """Several in a row, since an export takes seconds; the state of each is an output of its own."""
    model = policy(core="identity")
    width, options = model.core.output_size, {name: SMALL.get(name, {}) | TINY.get(name, {}) for name in names}
    cores = {f"c_{name}": make_core(name, width, width, **options[name]) for name in names}
    model.core = StackedCore(cores)
    exported = export_onnx(model, tmp_path / "agent.onnx")
    assert exported.error < 1e-4
    assert len(exported.inputs) == 2 + sum(len(core.state_spec) for core in cores.values())


@pytest.mark.parametrize(
    ("observation_space", "action_space", "names"),
    [
        (DICT, spaces.MultiDiscrete([2, 3]), ["action_probabilities.0", "action_probabilities.1"]),
        (IMAGE, spaces.Box(-1, np.array([1, 2], np.float32)), ["action_mean", "action_deviation"]),
        (spaces.Discrete(4), spaces.MultiBinary(3), ["action_probabilities"]),
        (spaces.MultiDiscrete([2, 3]), TWO, ["action_probabilities"]),
        (spaces.MultiBinary(4), TWO, ["action_probabilities"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_space_is_exported(observation_space, action_space, names, tmp_path):
    if observation_space is DICT:  # one of them as ONNX, which takes longest
        exported = export_onnx(policy(observation_space, action_space), tmp_path / "agent")
        assert list(exported.inputs)[:4] == ["observation.image", "observation.number", "observation.vector", "starts"]
    else:
        exported = export_torch(policy(observation_space, action_space), tmp_path / "agent")
    assert exported.error < 1e-4
    assert [name for name in exported.outputs if name.startswith("action")] == names
    assert exported.outputs[len(names)] == "value"


@pytest.mark.parametrize("stack", [None, 3])
def test_what_an_agent_does_to_observations_is_in_the_file(stack, tmp_path):
    """So that it takes them as environments give them: against the agent itself in its environment."""
    kwargs = dict(core="gru", core_kwargs=dict(hidden_size=8, layers=2, residual=True), bypass=True, net_arch=[8])
    options = dict(frame_stack=stack, last_reward=stack is not None)
    env = normalize(make_vec_env("MountainCar-v0", 2, seed=0, **options), clip_obs=1.2)
    MemoryPPO("MemoryPolicy", env, n_steps=32, policy_kwargs=kwargs).learn(64).save(tmp_path / "agent")
    model = load(tmp_path / "agent")
    exported = export_torch(model, tmp_path / "agent.pt2")
    run = torch.export.load(tmp_path / "agent.pt2").module()
    raw, state, starts = make_vec_env("MountainCar-v0", 2, seed=3, **options), None, np.ones(2, bool)
    known = model.normalized(raw)
    obs, leaves = known.reset(), [torch.zeros(2, *shape) for name, shape in exported.inputs.items() if "state." in name]
    for _ in range(4):
        given = known.get_original_obs()
        parts = [given[name.removeprefix("observation.")] for name in exported.inputs if "observation." in name]
        observed = [torch.as_tensor(part) for part in (parts or [given])]
        probabilities, _, *leaves = run(*observed, torch.as_tensor(starts), *leaves)
        with torch.no_grad():
            halves = [np.zeros((1, 2, model.policy.lstm_actor.hidden_size), np.float32)] * 2 if state is None else state
            expected, _ = model.policy.get_distribution(
                model.policy.obs_to_tensor(obs)[0], tuple(map(torch.as_tensor, halves)), torch.as_tensor(starts)
            )
        torch.testing.assert_close(probabilities, expected.distribution.probs, rtol=1e-4, atol=1e-5)
        actions, state = model.predict(obs, state, starts, deterministic=True)
        obs, _, starts, _ = known.step(actions)


def test_agents_of_stock_algorithms_with_our_policy_are_exported(tmp_path):
    model = RecurrentPPO(MemoryActorCriticPolicy, "CartPole-v1", n_steps=8, batch_size=8, policy_kwargs={"core": "gru"})
    assert export_torch(model, tmp_path / "agent.pt2").error < 1e-4


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    path = tmp_path_factory.mktemp("agent") / "agent.zip"
    kwargs = dict(core="gru", core_kwargs=SMALL["gru"])
    MemoryPPO("MemoryPolicy", "CartPole-v1", seed=0, policy_kwargs=kwargs).save(path)
    return path


def test_the_example_without_pytorch_plays(agent, tmp_path):
    assert main(["export", str(agent), "--onnx", str(tmp_path / "agent.onnx")]) == 0
    _, code = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 22
    code += "import sys\nassert 'torch' not in sys.modules and 'relmem' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) == 500.0  # one for each step


def test_a_program_of_pytorch_says_what_it_takes(agent, tmp_path, capsys):
    file = tmp_path / "agent.pt2"
    assert main(["export", str(agent), "--torch", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["error"] < 1e-4
    described = {"relmem": ""}
    program = torch.export.load(file, extra_files=described).module()
    about = json.loads(described["relmem"])
    assert about["core"] == "gru" and about["action_space"]["kind"] == "Discrete"
    shapes = [[5, *shape[1:]] for shape in about["inputs"].values()]
    inputs = [torch.zeros(shape) if number != 1 else torch.ones(shape).bool() for number, shape in enumerate(shapes)]
    outputs = dict(zip(about["outputs"], program(*inputs), strict=True))
    assert outputs["action_probabilities"].shape == (5, 2) and outputs["value"].shape == (5,)


def test_a_graph_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    model = policy()
    load = torch.export.load

    def changed(*args):
        program = load(*args)
        program.state_dict["policy.value_net.bias"].data.add_(0.1)
        return program

    monkeypatch.setattr(torch.export, "load", changed)
    with pytest.raises(
        ValueError, match=rf"differs from the policy by .* in value within {STEPS} steps: .* is not written"
    ):
        export_torch(model, tmp_path / "agent.pt2")
    assert not list(tmp_path.iterdir()) and TOLERANCE < 0.1


def test_a_core_that_cannot_be_traced_gets_a_sentence(tmp_path):
    class Branching(IdentityCore):
        def step(self, x, state):
            return (x if x.sum() > 0 else -x), state

    model = policy(core="identity")
    model.core = Branching(model.core.input_size)
    with pytest.raises(ValueError, match=r"cannot trace this policy with the core 'identity' .*branch on values"):
        export_torch(model, tmp_path / "agent.pt2")
    assert not list(tmp_path.iterdir())


def test_a_policy_stays_what_it_was(tmp_path):
    model = A3C("MemoryPolicy", "CartPole-v1", workers=1, envs_per_worker=1, precision="bf16")
    model.policy.set_training_mode(True)
    export_torch(model, tmp_path / "agent.pt2")
    assert model.policy.training and model.policy.features_dtype is torch.bfloat16
    assert all(parameter.requires_grad for parameter in model.policy.parameters())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--onnx", "{taken}"], "exists already: choose another name"),
        (["--onnx", "{folder}/no/agent.onnx"], "there is no folder"),
        (["--onnx", "{folder}/a", "--opset", "9"], "opset must be an integer from 18 to 24"),
        (["--torch", "{folder}/a", "--opset", "20"], "--opset goes with --onnx"),
        (["--onnx", "{folder}/a", "--torch", "{folder}/a"], "both name"),
        ([], "--onnx FILE or --torch FILE"),
        (["--onxx", "a"], "did you mean 'onnx'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_get_a_sentence(words, sentence, agent, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("precious")
    words = [word.format(taken=taken, folder=tmp_path) for word in words]
    assert main(["export", str(agent), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [taken] and taken.read_text() == "precious"


def test_a_missing_extra_is_named(agent, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(agent), "--onnx", str(tmp_path / "agent.onnx")]) == 2
    assert "needs the extra [export]: pip install 'relmem[export]'" in capsys.readouterr().err


def test_nothing_to_export_gets_a_sentence(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--torch", str(tmp_path / "a")]) == 2
    assert "no saved agent" in capsys.readouterr().err
