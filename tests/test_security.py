"""What a file may do to whoever loads it: nothing, unless it is trusted; and a bit turned over is noticed."""

import base64
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import cloudpickle
import pytest
import torch
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import LinearSchedule

from relmem.agents import A3C, MemoryPPO, SequenceModel, load
from relmem.agents.load import saved_file
from relmem.cli import main
from relmem.common.plain import PICKLE
from relmem.common.saved import Damaged, require_seal, seal
from relmem.experiment.folder import steps_taken

SAVED = Path(__file__).parent / "data" / "saved"  # by version 0.1.0
SMALL = {"core": "gru", "core_kwargs": {"hidden_size": 4}}


class Hostile:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("hostile",)


@pytest.fixture(autouse=True)
def nothing_hostile_ran(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path("hostile").exists()


@pytest.fixture
def agent(tmp_path):
    MemoryPPO("MemoryPolicy", "CartPole-v1", policy_kwargs=SMALL).save(tmp_path / "model.zip")
    return tmp_path / "model.zip"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of an agent and one of a task, each with a checkpoint."""
    folder = tmp_path_factory.mktemp("runs")
    core = ["--core.name", "gru", "--core.hidden_size", "4", "--smoke"]
    assert main(["train", "--env.id", "CartPole-v1", *core, "--run_dir", str(folder / "agent")]) == 0
    assert main(["train", "--task.name", "parity", *core, "--run_dir", str(folder / "task")]) == 0
    return folder


def with_entry(file, name, content, sealed=True):
    """Replace an entry of an archive, or add one."""
    changed = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.namelist():
            if entry != name:
                new.writestr(entry, old.read(entry))
        new.writestr(name, content)
    file.write_bytes(seal(changed.getvalue()) if sealed else changed.getvalue())


def hostile_data(file, key="ep_info_buffer"):
    data = json.loads(zipfile.ZipFile(file).read("data"))
    return json.dumps(data | {key: {":type:": "deque", PICKLE: base64.b64encode(pickle.dumps(Hostile())).decode()}})


def hostile_weights():
    torch.save({"w": Hostile()}, file := io.BytesIO())
    return file.getvalue()


@pytest.mark.parametrize(
    "way", [load, MemoryPPO.load, lambda file: MemoryPPO("MemoryPolicy", "CartPole-v1").set_parameters(file)]
)
@pytest.mark.parametrize("sealed", [True, False])
def test_pickles_among_the_attributes_do_not_run(way, sealed, agent):
    with_entry(agent, "data", hostile_data(agent), sealed)
    with pytest.raises(ValueError, match=r"trusted=True \(--trusted\) if you know who wrote it") as error:
        way(agent)
    assert ("ep_info_buffer" in str(error.value)) == sealed


@pytest.mark.parametrize("name", ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"])
@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("sealed", [True, False])
def test_pickles_among_the_weights_do_not_run(name, trusted, sealed, agent):
    """Not even where a file is trusted: PyTorch then reads them as weights only."""
    if not sealed:
        shutil.copy(SAVED / "ppo.zip", agent)
    with_entry(agent, name, hostile_weights(), sealed)
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        load(agent, trusted=trusted)


def test_whoever_is_trusted_is_believed(agent):
    with_entry(agent, "data", hostile_data(agent))
    load(agent, trusted=True)
    Path("hostile").rmdir()  # which it had made


@pytest.mark.parametrize("kind", ["agent", "task"])
@pytest.mark.parametrize("place", ["model", "checkpoint"])
def test_a_run_with_a_hostile_model_is_not_resumed(kind, place, runs, tmp_path, capfd):
    run = Path(shutil.copytree(runs / kind, tmp_path / "run"))
    ending = ".zip" if kind == "agent" else ".pt"
    file = run / f"model{ending}"
    if place == "checkpoint":
        file = file.rename(run / "checkpoints" / f"step_{1:012d}{ending}")
    if kind == "agent":
        with_entry(file, "data", hostile_data(file))
    else:
        saved = torch.load(file, weights_only=True)
        torch.save(saved | {"order": Hostile()}, changed := io.BytesIO())
        file.write_bytes(seal(changed.getvalue()))
        with pytest.raises(ValueError, match="no model of a supervised training"):
            SequenceModel.load(file, trusted=True)
    total = "--total_timesteps" if kind == "agent" else "--total_updates"
    assert main(["train", "--resume", str(run), total, "999"]) == 2
    said = capfd.readouterr().err
    assert "trusted" in said if kind == "agent" else "holds no checkpoint to continue from" in said


def test_of_a_run_that_which_is_whole_is_played_with(runs, tmp_path, capsys):
    run = Path(shutil.copytree(runs / "agent", tmp_path / "run"))
    whole = run / "checkpoints" / f"step_{1:012d}.zip"
    whole.parent.mkdir(exist_ok=True)
    shutil.copy(run / "model.zip", whole)
    assert saved_file(run) == run / "model.zip"
    (run / "model.zip").write_bytes(whole.read_bytes()[:-1])
    assert saved_file(run) == whole and load(run).num_timesteps > 0
    assert "model.zip' is damaged, or holds no saved model: passed over" in capsys.readouterr().err
    whole.write_bytes(b"")
    with pytest.raises(Damaged):
        load(run)


def test_trusted_is_for_what_is_loaded(capsys):
    assert main(["train", "--env.id", "CartPole-v1", "--trusted"]) == 2
    assert "trusted goes with --resume" in capsys.readouterr().err


class Own(FlattenExtractor):
    """A feature extractor that is no part of any package."""


def test_what_has_no_plain_form_is_named(tmp_path):
    kwargs = SMALL | {"features_extractor_class": Own, "activation_fn": torch.nn.ELU}
    model = MemoryPPO("MemoryPolicy", "CartPole-v1", learning_rate=lambda left: 0.1 * left, policy_kwargs=kwargs)
    model.save("model")
    sentence = r"'model.zip' holds pickles \(policy_kwargs.features_extractor_class, learning_rate\)"
    for way in (load, MemoryPPO.load):
        with pytest.raises(ValueError, match=sentence):
            way("model")
    assert load("model", trusted=True).learning_rate(0.5) == 0.05
    loaded = load("model", custom_objects={"learning_rate": 0.3, "policy_kwargs": kwargs})  # SB3's own way
    assert loaded.learning_rate == 0.3 and type(loaded.policy.features_extractor) is Own


def test_layers_schedules_and_optimizers_of_known_packages_are_plain(tmp_path):
    kwargs = SMALL | dict(activation_fn=torch.nn.ELU, net_arch=[4], features_extractor_class=FlattenExtractor)
    kwargs |= dict(optimizer_class=torch.optim.AdamW, optimizer_kwargs={"betas": (0.8, 0.9)})
    settings = dict(learning_rate=LinearSchedule(1e-3, 1e-4, 0.5), clip_range=LinearSchedule(0.2, 0.1, 1.0))
    model = MemoryPPO("MemoryPolicy", "CartPole-v1", n_steps=8, policy_kwargs=kwargs, **settings)
    model.learn(8)
    model.save("model")
    loaded = load("model", env="CartPole-v1")
    assert loaded.policy_kwargs == kwargs and type(loaded.policy.optimizer) is torch.optim.AdamW
    assert loaded.learning_rate(0.9) == model.learning_rate(0.9) and loaded.clip_range(0.5) == model.clip_range(0.5)
    for ours, theirs in zip(loaded.policy.parameters(), model.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    loaded.learn(8, reset_num_timesteps=False)


def test_a_file_imports_no_module(tmp_path):
    (tmp_path / "visitor.py").write_text(
        "from relmem.agents import register_core\nfrom relmem.agents.cores.identity import IdentityCore\n"
        "class Visitor(IdentityCore):\n    pass\nregister_core('visitor')(Visitor)\n"
    )
    code = (
        "import sys; sys.path.append('.')\n"
        "from relmem.agents import MemoryPPO, load\n"
        "MemoryPPO('MemoryPolicy', 'CartPole-v1', policy_kwargs={'core': 'visitor:visitor'}).save('model')\n"
        "del sys.modules['visitor']\n"
        "try:\n    load('model')\nexcept ValueError as error:\n    print(error)\n"
        "assert 'visitor' not in sys.modules\n"
        "load('model', trusted=True)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    assert "has the core 'visitor:visitor': import visitor before, or load the file with trusted=True" in said.stdout


@pytest.mark.parametrize("algorithm", [MemoryPPO, A3C])
def test_files_of_other_libraries_and_of_version_0_1_say_so(algorithm):
    name = "ppo" if algorithm is MemoryPPO else "a3c"
    for way in (load, algorithm.load):
        with pytest.raises(ValueError, match=r"saved by an older version of relmem or by SB3.*trusted=True"):
            way(SAVED / name)
        assert way(SAVED / name, trusted=True).num_timesteps > 0
    with pytest.raises(ValueError, match=r"has no checksum.*trusted=True"):
        SequenceModel.load(SAVED / "task.pt")


def test_a_model_travels_through_memory_too(agent):
    model = load(agent)
    model.save(file := io.BytesIO())
    file.seek(0)
    assert torch.equal(MemoryPPO.load(file).policy.value_net.weight, model.policy.value_net.weight)


def flips(content, number):
    """The content with each of so many bits turned over."""
    for bit in random.Random(0).sample(range(8 * len(content)), number):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


@pytest.mark.parametrize("number", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_bit_turned_over_is_noticed_before_anything_is_used(number, runs, tmp_path, monkeypatch):
    def used(*args, **kwargs):
        raise AssertionError("the content was looked at")

    agent, task = runs / "agent" / "model.zip", runs / "task" / "model.pt"
    for file, ways in ((agent, (load, steps_taken)), (task, (SequenceModel.load, steps_taken))):
        damaged = tmp_path / file.name
        with monkeypatch.context() as patch:
            for module, name in ((json, "loads"), (torch, "load"), (cloudpickle, "loads"), (zipfile.ZipFile, "read")):
                patch.setattr(module, name, used)
            for content in flips(file.read_bytes(), number):
                damaged.write_bytes(content)
                for way in ways:
                    with pytest.raises(ValueError, match=r"damaged|whole") as error:
                        way(damaged)
                    assert isinstance(error.value.__cause__ if way is steps_taken else error.value, Damaged)
    checkpoint = tmp_path / "step_000000000001.zip"
    shutil.copy(agent, checkpoint)
    for content in flips(checkpoint.read_bytes(), number):
        with pytest.raises(Damaged):
            require_seal(content)


@pytest.mark.parametrize("nested", ["relmem.agents.features.FeaturesAndLast", "relmem.agents.MemoryActorCriticPolicy"])
def test_a_file_imports_no_module_by_what_it_is_built_of(nested, agent, monkeypatch):
    """However deep in a policy it is named: by features within features, or by the core of a policy as features."""
    Path("visitor.py").write_text("import os\nos.mkdir('hostile')\n")
    monkeypatch.syspath_prepend(".")
    data = json.loads(zipfile.ZipFile(agent).read("data"))
    inner = {"features": "visitor:name", "core": "visitor:name", "action_space": data["action_space"]}
    inner |= {"lr_schedule": {"$schedule": ["stable_baselines3.common.utils.ConstantSchedule", {"val": 1.0}]}}
    own = {"features": "visitor:name"} if nested.endswith("Last") else inner
    kwargs = {"core": "gru", "features_extractor_class": {"$class": nested}, "features_extractor_kwargs": own}
    parts = [{"$tuple": [part, data["observation_space"]]} for part in ("observation", "last_reward")]
    space = {"$space": ["Dict", parts]}
    changed = {"policy_kwargs": kwargs} | ({"observation_space": space} if nested.endswith("Last") else {})
    with_entry(agent, "data", json.dumps(data | changed))
    with pytest.raises(ValueError, match=r"'visitor:name': import visitor before, or load the file with trusted=True"):
        load(agent)


@pytest.mark.parametrize("sealed", [True, False])
def test_what_is_small_in_a_file_stays_small(sealed, agent):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", " " * (64 << 20))
    agent.write_bytes(seal(bomb.getvalue()) if sealed else bomb.getvalue())
    tracemalloc.start()
    for way in (load, MemoryPPO.load, steps_taken):
        with pytest.raises(ValueError):
            way(agent)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("bad", [None, 3, [], {}, "text", {"$class": "torch.nn.Bilinear"}])
@pytest.mark.parametrize("name", ["data", "policy", "policy.optimizer", "moment"])
def test_parts_that_are_something_else_get_a_sentence(name, bad, agent):
    if name == "moment" and bad in (None, {}):
        return  # there is none
    with_entry(agent, name, json.dumps(bad))
    with pytest.raises(ValueError):
        load(agent)


@pytest.mark.parametrize("bad", [None, 3, [], "text", {"$class": "torch.nn.Bilinear"}, {"core": "gru", "bogus": 1}])
@pytest.mark.parametrize("name", ["policy_class", "policy_kwargs", "n_envs", "observation_space", "algorithm"])
def test_attributes_that_are_something_else_get_a_sentence(name, bad, agent):
    if (name, bad) != ("n_envs", 3):
        data = json.loads(zipfile.ZipFile(agent).read("data"))
        with_entry(agent, "data", json.dumps(data | {name: bad}))
        with pytest.raises(ValueError):
            load(agent)


def test_an_agent_larger_than_any_memory_gets_a_sentence(agent):
    data = json.loads(zipfile.ZipFile(agent).read("data"))
    huge = {"core": "gru", "core_kwargs": {"hidden_size": 10**15}}
    with_entry(agent, "data", json.dumps(data | {"policy_kwargs": huge}))
    with pytest.raises(ValueError, match=r"of '.*model.zip' no agent can be made: RuntimeError: .*memory"):
        load(agent)
