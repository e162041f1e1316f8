"""Workers on a real Ray cluster of several nodes: both ways to learn, and what is lost on the way."""

import csv
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import pytest
import ray
from observers import CARTPOLE, Observer, StopWhenSolved
from ray.cluster_utils import Cluster
from small_cores import SMALL
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from relmem.agents import A3C, IMPALA
from relmem.agents.distributed import ray_fleet
from relmem.agents.distributed.fleet import weights_of
from relmem.agents.distributed.ray_fleet import RayWorker
from relmem.agents.impala.rollout import RolloutJob
from relmem.agents.messages import pickled
from relmem.agents.worker_envs import env_factory
from relmem.experiment.folder import RunFolder

pytestmark = pytest.mark.slow
NODE = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
BOTH = pytest.mark.parametrize("kind", [IMPALA, A3C])
SMALL_RUN = {"envs_per_worker": 2, "t_max": 5, "seed": 0, "launcher": "ray"}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes: the driver's, with room for no worker, and one with room for two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # workers import the environments of this module
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False})
        cluster.add_node(**NODE)
        ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


class Death(gymnasium.Wrapper):
    """Kills its process once, as soon as a file is there."""

    def __init__(self, env, file):
        super().__init__(env)
        self.file = file

    def step(self, action):
        if self.file.exists():
            self.file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.env.step(action)


def mortal(file, n_envs, seed):
    env = VecMonitor(DummyVecEnv([lambda: Death(gymnasium.make(CARTPOLE), file) for _ in range(n_envs)]))
    env.seed(seed)
    return env


class At(Observer):
    """Does something once, at a step or as soon after it as it is time."""

    def __init__(self, step, action, is_time=lambda: True):
        super().__init__()
        self.step, self.action, self.is_time = step, action, is_time

    def _on_step(self):
        if self.action and self.num_timesteps >= self.step and self.is_time():
            action, self.action = self.action, None
            action()
        return super()._on_step()


def last_row(path):
    with path.open(encoding="utf-8") as file:
        return {name: float(text) for name, text in list(csv.DictReader(file))[-1].items() if text}


def learner(kind, env=CARTPOLE, **options):
    policy_kwargs = {"core": "lstm", "core_kwargs": {"hidden_size": 64}, "net_arch": [64]}
    policy_kwargs["optimizer_kwargs"] = {"eps": 1e-5, "amsgrad": kind is A3C}
    of_kind = {"unrolls": 1} if kind is IMPALA else {}
    options = {"workers": 2, "envs_per_worker": 4, "learning_rate": 3e-3, "stats_window_size": 30} | options
    clip_reward = 0.05  # brings returns to the order of 1
    return kind(
        "MemoryPolicy", env, clip_reward=clip_reward, seed=0, launcher="ray", policy_kwargs=policy_kwargs,
        **of_kind | options,
    )  # fmt: skip


def test_impala_learns_masked_cartpole_though_a_worker_is_killed(cluster, tmp_path):
    file, callback = tmp_path / "die", StopWhenSolved(threshold=80)
    kill = At(2000, file.touch)
    model = learner(IMPALA, functools.partial(mortal, file))
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(80_000, callback=[callback, kill])
    assert callback.solved
    logged = last_row(tmp_path / "progress.csv")
    assert not file.exists() and logged["time/worker_restarts"] == 1 and logged["time/workers"] == 2
    assert model.num_timesteps == model._n_updates * 4 * 20
    assert kill.steps == list(range(4, kill.steps[-1] + 1, 4))


def test_a3c_learns_on_when_a_node_is_removed_from_four(cluster, tmp_path):
    removed = cluster.add_node(**NODE)
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()

    def logged(name):
        return last_row(tmp_path / "progress.csv").get(name)

    def remove_node():
        cluster.remove_node(removed, allow_graceful=False)

    remove = At(1500, remove_node, lambda: logged("time/workers") == 6)  # what starts would not be missed
    model = learner(A3C, workers=6, envs_per_worker=2)  # on all processors
    model.set_logger(configure(str(tmp_path), ["csv"]))
    callback = StopWhenSolved(40, lambda: logged("time/workers") == 4)  # twice what random play comes to
    model.learn(300_000, callback=[remove, callback], log_interval=20)
    assert callback.solved and remove.action is None
    assert logged("time/worker_restarts") == 2 and logged("time/workers") == 4  # there is no room for the two any more
    assert remove.steps == list(range(2, remove.steps[-1] + 1, 2))


@BOTH
@pytest.mark.parametrize("core", ["stm", "rmc"])
def test_both_ways_carry_every_kind_of_memory(cluster, kind, core):
    """Two memories, and one that does not begin with zeros."""
    model = kind(
        "MemoryPolicy", CARTPOLE, workers=1, policy_kwargs={"core": core, "core_kwargs": SMALL[core]}, **SMALL_RUN
    )
    model.learn(400)
    assert model.num_timesteps == 400 and model._n_updates in (20, 40)


def test_too_few_workers_end_the_training(cluster, monkeypatch):
    monkeypatch.setattr(ray_fleet, "PATIENCE_SECONDS", 0.5)
    model = IMPALA("MemoryPolicy", CARTPOLE, workers=20, min_workers=20, **SMALL_RUN)
    with pytest.raises(RuntimeError, match=r"of 20 workers play, on a Ray cluster of \d processors, and min"):
        model.learn(100)


class Poison(gymnasium.Wrapper):
    def step(self, action):
        return *self.env.step(action)[:1], float("nan"), False, False, {}


def poisonous(n_envs, seed):
    return VecMonitor(DummyVecEnv([lambda: Poison(gymnasium.make(CARTPOLE))] * n_envs))


def test_what_an_environment_of_a_worker_gives_is_named(cluster):
    model = A3C("MemoryPolicy", poisonous, workers=1, **SMALL_RUN)
    with pytest.raises(FloatingPointError, match="worker: environment 0 gave a reward that is not finite"):
        model.learn(100)
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]  # no worker is left


def test_a_worker_that_starts_again_begins_with_new_episodes():
    model = IMPALA("MemoryPolicy", CARTPOLE, workers=1, **SMALL_RUN)
    job = pickled(RolloutJob(model.policy, "fp32", env_factory(CARTPOLE), 2, 5, 0.99, None))
    worker, orders = RayWorker(), (weights_of(model.policy), 1.0)
    assert worker.work(orders) is None
    worker.start(job, 0)
    unrolls = [worker.work(orders)[1] for _ in range(2)]
    worker.start(job, 2)
    again = worker.work(orders)[1]
    assert unrolls[0].starts[0].all() and not unrolls[1].starts[0].any() and again.starts[0].all()
    assert not (again.obs[0] == unrolls[0].obs[0]).any()


def test_old_gradients_are_dropped(cluster):
    """With two workers in turn every other gradient has missed an update."""
    seen = At(0, None)
    model = A3C("MemoryPolicy", CARTPOLE, workers=2, max_lag=0, **SMALL_RUN)
    model.learn(1000, callback=seen)
    assert model.num_timesteps == 1000 and 0 < model._n_updates < 100


def test_a_killed_driver_leaves_nothing_behind_and_another_takes_its_run_up(cluster, tmp_path):
    folder = tmp_path / "run"
    begin = "from relmem.experiment import folder; folder.FIRST_CHECKPOINT_SECONDS = folder.CHECKPOINT_SECONDS = 0.5;"
    begin += "import sys; from relmem.cli import main; sys.exit(main(sys.argv[1:]))"
    options = ["--launcher", "ray", "--ray.address", cluster.address, "--eval.episodes", "1"]
    command = [sys.executable, "-c", begin, "train", "--config", "cartpole/masked_lstm_impala", *options]
    with subprocess.Popen([*command, "--run_dir", str(folder)]) as driver:
        while len(list(folder.glob("checkpoints/*"))) < 2 and driver.poll() is None:
            time.sleep(0.1)
        driver.kill()
    step = int(max(folder.glob("checkpoints/*")).stem.removeprefix("step_"))
    assert step > 0
    resume = [sys.executable, "-m", "relmem.cli", "train", "--resume", str(folder), *options]
    subprocess.run([*resume, "--total_timesteps", str(step + 2000)], check=True)
    results = RunFolder(Path(folder)).read_results()
    assert results["outcome"] == "finished" and results["steps"] >= step + 2000 and results["evaluation"]["complete"]
    steps = [int(line.split(",")[0]) for line in (folder / "episodes.csv").read_text().splitlines()[1:]]
    assert steps == sorted(steps)
