"""What the command line has of SB3's pipelines: normalisation, frame stacks, processes, wrappers, features, weights."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from counter_env import Counter
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from relmem.agents import MemoryPPO, evaluate, load, make_core
from relmem.agents.normalization import frozen, normalization_of, normalize
from relmem.cli import main
from relmem.cli.options import parse
from relmem.envs import make_vec_env
from relmem.envs.processes import ProcessVecEnv

MODULE = """
import gymnasium, numpy as np, torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnvWrapper

class Double(gymnasium.RewardWrapper):
    def reward(self, reward):
        return 2 * reward

def half(env):
    return gymnasium.wrappers.TransformObservation(env, lambda obs: obs / 2, env.observation_space)

class Blank(VecEnvWrapper):
    def reset(self):
        return 0 * self.venv.reset()
    def step_wait(self):
        obs, *rest = self.venv.step_wait()
        return 0 * obs, *rest

class Wide(BaseFeaturesExtractor):
    def __init__(self, space):
        super().__init__(space, 7)
        self.map = torch.nn.Linear(space.shape[0], 7)
    def forward(self, obs):
        return self.map(obs)

number = 3
"""
PLAIN = ["--env.id", "CartPole-v1", "--env.n_envs", "2", "--core.name", "gru", "--core.hidden_size", "8"]
SMALL = [*PLAIN, "--algo.n_steps", "16", "--total_timesteps", "64", "--eval.episodes", "1", "--run_dir"]


@pytest.fixture(autouse=True)
def own_module(tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("my_parts", None)


def sentence_of(capfd, *flags):
    assert main(["train", *PLAIN, *flags]) == 2
    printed = capfd.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.endswith(" ...")]
    assert printed.out == "" and len(lines) == 1, printed
    return lines[0]


# ---------------------------------------------------------------- normalisation


def test_statistics_are_saved_with_the_run_frozen_in_evaluation_and_go_on_when_it_is_resumed(tmp_path, capfd):
    run = ["--eval.every", "32", *SMALL, "run", "--env.normalize", "{clip_obs: 5.0}"]
    assert main(["train", *run]) == 0
    model = load("run")
    kept = model.normalization
    settings = {"clip_obs": 5.0, "gamma": 0.99, "norm_obs_keys": None}
    assert settings.items() <= kept["settings"].items() and len(kept["observations"][0]) == 4
    assert kept["observations"][2] == pytest.approx(64 + 2, abs=1)  # the steps, and the resets
    assert load("run/best_model").normalization["observations"][2] in (34 + 1e-4, 66 + 1e-4)
    tested = json.loads((tmp_path / "run" / "results.json").read_text())["evaluation"]
    assert tested["returns"] == [float(length) for length in tested["lengths"]]  # rewards as they are, 1 each
    plain = make_vec_env("CartPole-v1", 2, seed=5)
    known = model.normalized(plain)
    mean, var, _ = kept["observations"]
    obs, raw = known.reset(), known.get_original_obs()
    np.testing.assert_allclose(obs, ((raw - mean) / np.sqrt(np.array(var) + 1e-8)).clip(-5, 5), rtol=1e-5)
    known.step(np.zeros(2, int))
    assert normalization_of(known)["observations"] == kept["observations"]
    assert evaluate(model, make_vec_env("CartPole-v1", 2, seed=5)) == evaluate(
        model, make_vec_env("CartPole-v1", 2, seed=5)
    )
    assert main(["train", "--resume", "run", "--total_timesteps", "128"]) == 0
    assert load("run").normalization["observations"][2] == pytest.approx(128 + 4, abs=2)
    capfd.readouterr()


def test_a_model_that_learns_normalises_what_it_is_evaluated_in():
    env = VecNormalize(DummyVecEnv([lambda: Counter(5)]))
    model = MemoryPPO("MemoryPolicy", env, n_steps=16).learn(32)
    seen = []
    predict = model.predict
    model.predict = lambda obs, *rest, **named: seen.append(obs.item()) or predict(obs, *rest, **named)
    assert evaluate(model, DummyVecEnv([lambda: Counter(5)])).returns == [5.0]
    rms = env.obs_rms
    np.testing.assert_allclose(seen, (np.arange(5) - rms.mean) / np.sqrt(rms.var + env.epsilon), rtol=1e-5)
    assert model.normalized(env) is env


def test_parts_that_are_no_numbers_are_left_as_they_are():
    space = gymnasium.spaces.Dict(
        image=gymnasium.spaces.Box(0, 255, (3, 36, 36), np.uint8), place=gymnasium.spaces.Box(-1, 1, (2,)),
        level=gymnasium.spaces.Discrete(3),
    )  # fmt: skip

    class Parts(Counter):
        observation_space = space

        def reset(self, **kwargs):
            return self.observation_space.sample(), super().reset(**kwargs)[1]

        def step(self, action):
            return self.observation_space.sample(), *super().step(action)[1:]

    env = normalize(DummyVecEnv([lambda: Parts(3)]))
    env.reset()
    obs = env.step(np.zeros(1, int))[0]
    kept = normalization_of(env)
    assert obs["image"].dtype == np.uint8 and list(kept["observations"]) == ["place"]
    again = frozen(DummyVecEnv([lambda: Parts(3)]), json.loads(json.dumps(kept)))
    np.testing.assert_array_equal(again.obs_rms["place"].mean, env.obs_rms["place"].mean)


# ---------------------------------------------------------------- stacks, wrappers, processes


def test_frames_are_stacked_before_the_last_action_is_added():
    env = make_vec_env("CartPole-v1", 2, seed=0, frame_stack=3, last_action=True)
    first = env.reset()
    assert first["observation"].shape == (2, 12) and first["last_action"].shape == (2, 2)
    assert not first["observation"][:, :8].any()
    second = env.step(np.array([0, 1]))[0]
    np.testing.assert_array_equal(second["observation"][:, 4:8], first["observation"][:, 8:])
    pong = make_vec_env("PongNoFrameskip-v4", 2, frame_stack=4, image_size=36)
    assert pong.reset().shape == (2, 4, 36, 36)
    pong.close()


def test_wrappers_go_around_each_environment_or_around_all():
    env = make_vec_env("CartPole-v1", 2, seed=0, wrapper=["my_parts:Double", "my_parts:half"])
    plain = make_vec_env("CartPole-v1", 2, seed=0)
    np.testing.assert_allclose(env.reset(), plain.reset() / 2)
    assert env.step(np.array([0, 1]))[1].tolist() == [2.0, 2.0]
    assert not make_vec_env("PongNoFrameskip-v4", 2, wrapper="my_parts:Blank").reset().any()


def test_environments_in_processes_are_the_same_and_end_with_the_run(tmp_path, capfd):
    before = set(multiprocessing.active_children())
    kinds = [make_vec_env("CartPole-v1", 2, seed=3, frame_skip=2, backend=backend) for backend in ("dummy", "subproc")]
    obs = [env.reset() for env in kinds]
    np.testing.assert_array_equal(*obs)
    steps = [env.step(np.array([0, 1])) for env in kinds]
    np.testing.assert_array_equal(steps[0][0], steps[1][0])
    for env in kinds:
        assert env.get_attr("frames_per_step") == [2, 2]
        env.close()
    assert set(multiprocessing.active_children()) == before
    assert main(["train", *SMALL, "run", "--env.backend", "subproc"]) == 0
    assert set(multiprocessing.active_children()) == before
    capfd.readouterr()


class Failing(Counter):
    def step(self, action):
        if self.t == 2:
            os._exit(3)
        return super().step(action)


def test_a_process_that_dies_is_named_and_the_others_are_closed():
    env = ProcessVecEnv([lambda: Counter(9), lambda: Failing(9)])
    model = MemoryPPO("MemoryPolicy", env, n_steps=8)
    with pytest.raises(RuntimeError, match="environment 1 failed in its process"):
        model.learn(16)
    env.close()
    assert not any(process.is_alive() for process in env.processes)


def test_ctrl_c_ends_a_run_whose_environments_are_in_processes_in_good_order(tmp_path):
    flags = [*SMALL, "run", "--env.backend", "subproc", "--total_timesteps", "10000000", "--device", "cpu"]
    code = "import sys; from relmem.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "train", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Training "):
            break
    while not (tmp_path / "run" / "episodes.csv").exists():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    rest = process.communicate(timeout=100)[0]
    assert process.returncode == 130 and "Traceback" not in rest and load("run"), [*lines, rest]


# ---------------------------------------------------------------- features, layers, weights


def test_features_of_ones_own_are_learned_with_and_loaded(capfd):
    assert (
        main(["train", *SMALL, "run", "--policy.features", "my_parts:Wide", "--policy.net_arch", "{pi: [5], vf: []}"])
        == 0
    )
    policy = load("run").policy
    assert type(policy.features_extractor).__name__ == "Wide" and policy.core.input_size == 7
    assert policy.action_net.in_features == 5 and policy.value_net.in_features == 8
    capfd.readouterr()


def test_layers_mean_the_same_in_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("env: {id: CartPole-v1}\npolicy:\n  net_arch:\n    pi: [6e1]\n    vf: [8, 8]\n")
    config = parse(["--config", "mine.yaml"]).config
    assert config["policy.net_arch"] == {"pi": [60], "vf": [8, 8]} and type(config["policy.net_arch"]["pi"][0]) is int
    assert parse([*PLAIN, "--policy.net_arch", "{pi: [60], vf: [8, 8]}"]).config["policy.net_arch"] == {
        "pi": [60],
        "vf": [8, 8],
    }


def test_training_begins_with_the_weights_and_statistics_of_another_run(capfd):
    normal = ["--env.normalize", "true"]
    assert main(["train", *SMALL, "first", *normal]) == 0
    frozen_rate = ["--algo.learning_rate", "0", "--env.n_envs", "4"]
    assert main(["train", *SMALL, "second", *normal, *frozen_rate, "--init_from", "first"]) == 0
    first, second = load("first"), load("second")
    for name, tensor in first.policy.state_dict().items():
        assert torch.equal(tensor, second.policy.state_dict()[name]), name
    assert second.normalization["observations"][2] > first.normalization["observations"][2] + 60
    assert parse(["--resume", "second"]).config["init_from"] == "first"
    capfd.readouterr()
    told = sentence_of(capfd, "--core.hidden_size", "9", "--init_from", "first")
    assert re.search(r"cannot begin with first: these weights .*'core\..*' is \[24, \d+\] in them, and \[27, ", told)
    assert main(["train", *SMALL, "third", *frozen_rate, "--init_from", "first"]) == 0
    assert "was trained with env.normalize True, unlike this" in capfd.readouterr().err


def test_a_core_names_the_tensor_in_which_weights_differ():
    small, large = make_core("gru", 4, hidden_size=8), make_core("gru", 4, hidden_size=9)
    name, tensor = next(iter(small.state_dict().items()))
    with pytest.raises(ValueError, match=rf"another configuration: '{name}' is \[\d+.*\] in them, and \[24, "):
        small.load_state_dict(large.state_dict())
    with pytest.raises(ValueError, match=rf"another configuration: they lack '{name}' \[24, "):
        small.load_state_dict({})
    with pytest.raises(ValueError, match=r"another configuration: 'extra' \[24, "):
        small.load_state_dict(small.state_dict() | {"extra": tensor})
    small.load_state_dict({name: tensor}, strict=False)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--env.normalize", "3"], "env.normalize must be true or false or a mapping, got 3"),
        (["--env.normalize", "{clip_ob: 5}"], "unknown option of normalize 'clip_ob': did you mean 'clip_obs'?"),
        (["--env.normalize", "{clip_obs: high}"], "normalize.clip_obs must be a number, got 'high'"),
        (["--env.normalize", "--env.id", "FrozenLake-v1"], "are no numbers to normalize"),
        (["--env.frame_stack", "0"], "env.frame_stack must be an integer of at least 1 or null, got 0"),
        (["--env.frame_stack", "2", "--env.id", "FrozenLake-v1"], "frame_stack is for observations that are arrays"),
        (["--env.backend", "subprocess"], "unknown env.backend 'subprocess': did you mean 'subproc'?"),
        (["--env.backend", "subproc", "--env.id", "ALE/Pong-v5"], "ALE steps in threads: leave backend at auto"),
        (["--env.wrapper", "Double"], "env.wrapper must be module:name or a list such as"),
        (["--env.wrapper", "my_part:Double"], "wrapper 'my_part:Double' needs the module 'my_part', whose import"),
        (["--env.wrapper", "my_parts:Doubble"], "wrapper of module 'my_parts' 'Doubble': did you mean 'Double'?"),
        (["--env.wrapper", "my_parts:number"], "cannot make 'CartPole-v1': TypeError"),
        (["--env.wrapper", "my_parts:Double", "--env.id", "ALE/Pong-v5"], "must be of SB3's VecEnvWrapper kind"),
        (["--policy.features", "my_parts:Wid"], "unknown features of module 'my_parts' 'Wid': did you mean 'Wide'?"),
        (["--policy.features", "my_parts:Double"], "must be a class derived from SB3's BaseFeaturesExtractor"),
        (["--policy.net_arch", "{py: [4]}"], "unknown part of net_arch 'py': "),
        (["--policy.net_arch", "{pi: [0]}"], "policy.net_arch must be a list such as"),
        (["--init_from", "nowhere"], "there is no saved agent at 'nowhere'"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_sentence(flags, sentence, tmp_path, capfd):
    assert sentence in sentence_of(capfd, *flags)
    assert {path.name for path in tmp_path.iterdir()} <= {"my_parts.py", "__pycache__"}


def test_a3c_refuses_normalisation(capfd):
    assert main(["train", "--env.id", "CartPole-v1", "--algo.name", "a3c", "--env.normalize"]) == 2
    assert "env.normalize goes with algo.name ppo" in capfd.readouterr().err


# ---------------------------------------------------------------- Weights & Biases


def test_a_run_is_tracked_offline_and_goes_on_as_the_same(tmp_path, monkeypatch, capfd):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(["train", *SMALL, "run", "--track"]) == 0
    assert main(["train", "--resume", "run", "--total_timesteps", "128"]) == 0
    folders = [path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*")]
    assert len({name.rpartition("-")[2] for name in folders}) == 1, folders
    assert wandb.run is None
    written = b"".join(path.read_bytes() for path in (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert b"rollout/ep_rew_mean" in written and b"CartPole-v1" in written
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    capfd.readouterr()


def test_tracking_needs_its_extra_and_an_account(monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("NETRC", "/nonexistent")
    assert "--track needs an account: run `wandb login`" in sentence_of(capfd, "--track")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "--track needs the extra [track]: pip install 'relmem[track]'" in sentence_of(capfd, "--track")
