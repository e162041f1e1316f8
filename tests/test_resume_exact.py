"""A training that is taken up comes to the same numbers as one that was never stopped."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from small_cores import SMALL
from stable_baselines3.common.vec_env import DummyVecEnv

from relmem.agents import MemoryPPO, load
from relmem.agents.normalization import normalization_of, normalize
from relmem.cli import main
from relmem.common.exact import NotExact, exact_copy
from relmem.common.saved import pack, unpack
from relmem.envs import AtariVecEnv, make_vec_env
from relmem.envs.processes import ProcessVecEnv
from relmem.envs.state import load_state, save_state
from relmem.experiment import agent
from relmem.experiment import folder as run_folder
from relmem.experiment.episodes import read_episodes

CARTPOLE = ["train", "--env.id", "relmem/MaskedCartPole-v0", "--core.name", "gru", "--core.hidden_size", "8"]
PPO = [
    *CARTPOLE,
    "--env.n_envs",
    "2",
    "--algo.n_steps",
    "32",
    "--algo.n_epochs",
    "2",
    "--algo.learning_rate",
    "lin_1e-2",
]
ONE_WORKER = [*CARTPOLE, "--algo.name", "a3c", "--algo.workers", "1", "--algo.envs_per_worker", "2"]


def vector(model):
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


def assert_same(one, other):
    assert one.num_timesteps == other.num_timesteps and one._n_updates == other._n_updates
    assert torch.equal(vector(one), vector(other))
    for a, b in zip(*(m.policy.optimizer.state_dict()["state"].values() for m in (one, other)), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def agent_of(env, core="gru", **kwargs):
    policy_kwargs = {"core": core, "core_kwargs": SMALL.get(core, {})}
    return MemoryPPO("MemoryPolicy", env, n_steps=16, n_epochs=2, seed=0, policy_kwargs=policy_kwargs, **kwargs)


# -------------------------------------------------------------------- PPO, over environments and cores


@pytest.mark.parametrize(
    ("env", "core", "options"),
    [
        ("relmem/MaskedCartPole-v0", "stm", {}),
        ("CartPole-v1", "lstm", {"last_action": True, "last_reward": True}),
        ("Pendulum-v1", "rmc", {"max_frames": 25}),
        ("Acrobot-v1", "gtrxl", {"frame_skip": 2, "max_frames": 40}),
        ("relmem/RepeatFirst-v0", "gru", {"flicker": 0.3}),
        ("relmem/TMaze-v0", "mamba", {}),
        ("relmem/MemoryChain-v0", "identity", {}),
        ("PongNoFrameskip-v4", "gru", {"flicker": 0.2, "max_frames": 100, "image_size": 36}),
        ("ALE/Breakout-v5", "lstm", {"last_action": True, "image_size": 36}),
    ],
)
def test_n_and_n_steps_are_2n(env, core, options, tmp_path):
    def envs(seed):
        return make_vec_env(env, 2, seed=seed, **options)

    whole = agent_of(envs(1), core)
    whole.learn(32 * 6)
    half = agent_of(envs(1), core)
    half.learn(32 * 3)
    half.save(tmp_path / "half")
    np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    again = MemoryPPO.load(tmp_path / "half")
    again.set_env(envs(77))
    assert again.take_up(again.saved_at)
    again.learn(32 * 3, reset_num_timesteps=False)
    assert_same(again, whole)
    shown = [[(info["r"], info["l"]) for info in model.ep_info_buffer] for model in (whole, again)]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("options", [{}, {"last_reward": True, "frame_stack": 2}], ids=["plain", "parts"])
def test_a_normaliser_goes_on(options, tmp_path):
    def envs():
        return normalize(make_vec_env("Pendulum-v1", 2, seed=1, **options))

    whole = agent_of(envs())
    whole.learn(32 * 4)
    half = agent_of(envs())
    half.learn(32 * 2)
    half.save(tmp_path / "half")
    again = MemoryPPO.load(tmp_path / "half")
    again.set_env(envs())
    assert again.take_up(again.saved_at)
    again.learn(32 * 2, reset_num_timesteps=False)
    assert_same(again, whole)
    assert normalization_of(again.env) == normalization_of(whole.env)


class Opaque(gymnasium.Env):
    """Keeps its time in an object that nobody knows."""

    observation_space, action_space = spaces.Box(0, 100, (1,)), spaces.Discrete(2)

    class Clock:
        now = 0

    def __init__(self):
        self.clock = self.Clock()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock.now = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.clock.now += 1
        return np.array([self.clock.now], np.float32), 1.0, self.clock.now >= 10, False, {}


class Hooked(Opaque):
    """Says itself where it is."""

    def save_state(self):
        return self.clock.now

    def load_state(self, state):
        self.clock.now = state


gymnasium.register("Opaque-v0", Opaque)


def test_an_environment_may_say_itself_where_it_is(tmp_path):
    for kind, exact in ((Hooked, True), (Opaque, False)):
        model = agent_of(DummyVecEnv([kind]))
        model.learn(16)
        model.save(tmp_path / "model")
        again = MemoryPPO.load(tmp_path / "model")
        again.set_env(DummyVecEnv([kind]))
        assert again.take_up(again.saved_at) is exact
        assert again.num_timesteps == 16
        if exact:
            assert again.env.envs[0].clock.now == 6 and (again._last_obs == 6).all()


class Sampled(Opaque):
    """Observations are drawn from their space."""

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}

    def __init__(self):
        self.observation_space = spaces.Box(0, 1, (3,))


class Drawing(Hooked):
    """Draws from the generator of its process."""

    def step(self, action):
        return np.random.random(1).astype(np.float32), 1.0, False, False, {}  # noqa: NPY002


class Within(Opaque):
    """Plays in another environment without being its wrapper."""

    def __init__(self):
        self.env = Opaque()

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=seed)

    def step(self, action):
        return self.env.step(action)


def test_what_spaces_draw_and_what_is_called_env_belong_to_the_state():
    one, other = DummyVecEnv([Sampled]), DummyVecEnv([Sampled])
    one.seed(3), one.reset(), other.reset(), one.step(np.zeros(1))
    assert load_state(other, save_state(one))
    assert (one.step(np.zeros(1))[0] == other.step(np.zeros(1))[0]).all()
    one = DummyVecEnv([Within])
    one.reset()
    assert "'env' of Within" in save_state(one)["why"]


def test_environments_in_processes_of_their_own_go_on():
    kinds = [lambda: gymnasium.make("CartPole-v1"), Drawing]
    with closing(ProcessVecEnv(kinds[:1] * 2, "fork")) as one, closing(ProcessVecEnv(kinds[:1] * 2, "fork")) as other:
        one.seed(3), one.reset(), other.reset()
        for action in ([0, 1], [1, 0], [1, 1]):
            one.step(np.array(action))
        assert load_state(other, save_state(one))
        for _ in range(30):  # into other episodes
            assert (one.step(np.ones(2, int))[0] == other.step(np.ones(2, int))[0]).all()
    with closing(ProcessVecEnv(kinds[1:], "fork")) as one, closing(ProcessVecEnv(kinds[1:], "fork")) as other:
        one.reset(), other.reset()
        assert load_state(other, save_state(one))
        assert (one.step(np.zeros(1, int))[0] == other.step(np.zeros(1, int))[0]).all()
    with closing(ProcessVecEnv([Opaque], "fork")) as one:
        one.reset()
        assert "'clock' of Opaque" in save_state(one)["why"]


def test_a_run_says_where_episodes_begin_anew(tmp_path, capfd):
    flags = ["train", "--env.id", "Opaque-v0", *PPO[3:], "--run_dir", str(tmp_path / "run")]
    assert main([*flags, "--total_timesteps", "64"]) == 0
    capfd.readouterr()
    assert main(["train", "--resume", str(tmp_path / "run"), "--total_timesteps", "128"]) == 0
    assert capfd.readouterr().err.count("Opaque-v0 cannot be taken up in the middle of an episode ('clock'") == 1


def test_games_are_played_again_also_after_many_episodes(monkeypatch):
    from relmem.envs import atari_vec

    monkeypatch.setattr(atari_vec, "EPISODES_PER_SEED", 3)
    actions = np.random.default_rng(0).integers(3, size=(60, 2))
    one = AtariVecEnv("pong", 2, seed=4, max_frames=40, image_size=24)
    one.reset()
    for action in actions[:57]:
        one.step(action)
    assert one._begun.max() <= 3 and (one._game_seeds > 1_000_000).all()
    other = AtariVecEnv("pong", 2, seed=90, max_frames=40, image_size=24)
    assert other.load_state(exact_copy(one.save_state()))
    for action in actions[57:]:
        for a, b in zip(one.step(action)[:3], other.step(action)[:3], strict=True):
            assert (a == b).all()


# -------------------------------------------------------------------- runs: ended, stopped and killed


def curve(folder):
    return read_episodes(folder / "episodes.csv")[:, :3].tolist()


@pytest.fixture(scope="module", params=["ppo", "a3c"])
def never_stopped(request, tmp_path_factory):
    """A run of 768 steps that saves a checkpoint whenever it can: its flags, its folder, and its third checkpoint."""
    flags = PPO if request.param == "ppo" else ONE_WORKER
    place = tmp_path_factory.mktemp("whole")
    kept, save = [], run_folder.save

    def keep(model, path):
        save(model, path)
        if "step_" in path.name and len(kept) < 3:
            kept.append(Path(shutil.copy(path, place / path.name)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "save", keep)
        for name in ("CHECKPOINT_SECONDS", "FIRST_CHECKPOINT_SECONDS"):
            patch.setattr(run_folder, name, 0.0)
        assert main([*flags, "--run_dir", str(place / "run"), "--total_timesteps", "768"]) == 0
    return flags, place / "run", kept[2]


def test_a_run_that_was_stopped_comes_to_the_same(never_stopped, tmp_path, monkeypatch):
    """It saves no checkpoints, and the other did: that changes nothing."""
    flags, whole, _ = never_stopped
    run, step, stopped = tmp_path / "run", agent.Watch._on_step, []

    def stop(callback):
        if callback.num_timesteps >= 300 and not stopped:
            stopped.append(signal.raise_signal(signal.SIGTERM))
        return step(callback)

    monkeypatch.setattr(agent.Watch, "_on_step", stop)
    assert main([*flags, "--run_dir", str(run), "--total_timesteps", "768"]) == 128 + signal.SIGTERM
    assert 0 < load(run).num_timesteps < 768
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(load(run), load(whole))
    assert curve(run) == curve(whole)


def test_a_run_that_was_stopped_in_an_update_comes_to_the_same(never_stopped, tmp_path, monkeypatch):
    flags, whole, _ = never_stopped
    if flags is not PPO:
        pytest.skip("A3C's updates are its workers'")
    run, step, steps = tmp_path / "run", torch.optim.Adam.step, []

    def stop(self, *args, **kwargs):
        steps.append(step(self, *args, **kwargs))
        if len(steps) == 18:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", stop)
        assert main([*flags, "--run_dir", str(run), "--total_timesteps", "768"]) == 128 + signal.SIGINT
    assert load(run).num_timesteps == 4 * 64  # the fifth update, of four minibatches, was broken off
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(load(run), load(whole))
    assert curve(run) == curve(whole)


def test_a_run_goes_on_from_a_checkpoint_in_its_midst(never_stopped, tmp_path):
    """As after a kill: what came behind the checkpoint is repeated."""
    _, whole, checkpoint = never_stopped
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    shutil.copy(checkpoint, run / "checkpoints")
    (run / "model.zip").unlink()
    (run / "results.json").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(load(run), load(whole))
    assert curve(run) == curve(whole)


@pytest.mark.slow
def test_a_killed_run_comes_to_the_same(tmp_path):
    code = (
        "import sys; from relmem.experiment import folder; folder.CHECKPOINT_SECONDS = 0.3;"
        "folder.FIRST_CHECKPOINT_SECONDS = 0.3; from relmem.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    flags = [*PPO, "--total_timesteps", "2000"]
    process = subprocess.Popen([sys.executable, "-c", code, *flags, "--run_dir", str(tmp_path / "run")])
    while not list((tmp_path / "run").glob("checkpoints/step_*.zip")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert main([*flags, "--run_dir", str(tmp_path / "whole")]) == 0
    assert_same(load(tmp_path / "run"), load(tmp_path / "whole"))
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_supervised_runs_are_exact(tmp_path):
    flags = ["train", "--config", "tasks/copy_stm", "--core.name", "gru", "--training.batch_size", "4"]
    flags += ["--training.eval_size", "4"]
    for folder, *totals in (("whole", "6"), ("halves", "3", "6")):
        run = tmp_path / folder
        assert main([*flags, "--run_dir", str(run), "--total_updates", totals[0]]) == 0
        for total in totals[1:]:
            assert main(["train", "--resume", str(run), "--total_updates", total]) == 0
    whole, halves = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("whole", "halves"))
    assert whole["updates"] == halves["updates"] == 6
    assert all(torch.equal(whole["model"][name], halves["model"][name]) for name in whole["model"])


# -------------------------------------------------------------------- exact values


def through_a_file(value):
    return unpack(pack({"part": {"value": exact_copy(value)}}))["part"]["value"]


@pytest.mark.parametrize("again", [exact_copy, through_a_file])
def test_values_come_back_as_they_were(again):
    generator = np.random.default_rng(3)
    generator.random(5)
    value = {
        "numbers": (1, 2**100, -0.1, float("inf"), np.float32(0.1), np.float64(0.1), np.int64(7), np.bool_(True), None),
        3: [np.arange(6, dtype=np.uint32).reshape(2, 3), torch.ones(2, dtype=torch.bfloat16)],
        "bytes": (b"\0\xff", bytearray(b"ab"), {1, 2}, deque([1], maxlen=2)),
        "generator": generator,
        "old": np.random.RandomState(4),
        "python": random.Random(5),
    }
    back = again(value)
    for name in ("numbers", "bytes"):
        assert back[name] == value[name] and [*map(type, back[name])] == [*map(type, value[name])]
    assert (back[3][0] == value[3][0]).all() and back[3][0].dtype == np.uint32
    assert torch.equal(back[3][1], value[3][1]) and back["bytes"][3].maxlen == 2
    assert back["generator"].random() == generator.random()
    assert back["old"].randint(10**6) == value["old"].randint(10**6)
    assert back["python"].random() == value["python"].random()


def test_what_would_not_come_back_as_it_was_is_refused():
    shared, array = [1], np.zeros(4)
    for value, why in (
        *(([shared, shared], "two places"), ([array[:2], array[1:]], "two places"), (object(), "object")),
        *(({"f": len}, "builtin"), (np.array(["a"]), "ndarray of <U1"), (np.zeros(2, ">f4"), "ndarray of >f4")),
    ):
        with pytest.raises(NotExact, match=why):
            exact_copy(value)
