"""A3C: learning in several processes, callbacks and log, saving, the ways a run can end, bad arguments."""

import csv
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from observers import CARTPOLE, Observer, StopWhenSolved, parameters
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

from relmem.agents import A3C
from relmem.agents import worker_envs as environments_module
from relmem.agents.a3c import algorithm, pool
from relmem.agents.a3c.shared import StepBudget
from relmem.agents.a3c.worker import persistent_buffers, require_constant_buffers
from relmem.agents.finite import has_finite_weights
from relmem.envs import make_vec_env

TWO_WORKERS = {"workers": 2, "envs_per_worker": 2, "t_max": 5, "seed": 0}
ONE_WORKER = {**TWO_WORKERS, "workers": 1}


@pytest.fixture(autouse=True)
def no_process_left():
    yield
    assert multiprocessing.active_children() == []


# -------------------------------------------------------------------- runs


def test_two_workers_learn_masked_cartpole():
    """Random play lasts 20 steps, and an agent without memory (the core ``identity``) levels off at about 50."""
    model = A3C(
        "MemoryPolicy",
        CARTPOLE,
        workers=2,
        envs_per_worker=4,
        learning_rate=3e-3,
        clip_reward=0.05,  # brings returns to the order of 1
        stats_window_size=50,
        seed=0,
        policy_kwargs={
            "core": "lstm",
            "core_kwargs": {"hidden_size": 64},
            "optimizer_kwargs": {"eps": 1e-5, "amsgrad": True},
        },
    )
    callback = StopWhenSolved(threshold=120)
    model.learn(150_000, callback=callback)
    assert callback.solved


def test_callbacks_logger_and_progress_bar_work_as_in_sb3(tmp_path, monkeypatch):
    monkeypatch.setattr(algorithm, "REFRESH_SECONDS", -1.0)
    model = A3C("MemoryPolicy", CARTPOLE, learning_rate=LinearSchedule(0.01, 0.0, 1.0), **TWO_WORKERS)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    before = parameters(model)
    observer = Observer()
    evaluation = EvalCallback(make_vec_env(CARTPOLE, 1), eval_freq=60, n_eval_episodes=1, verbose=0)
    checkpoints = CheckpointCallback(save_freq=100, save_path=str(tmp_path))
    model.learn(415, callback=[observer, evaluation, checkpoints], log_interval=20, progress_bar=True)

    assert model.num_timesteps == 420  # whole segments of 5 steps in 2 environments
    assert model._current_progress_remaining == 0.0  # no schedule is asked beyond the end
    assert observer.steps == list(range(2, 421, 2))
    assert observer.shapes == {((2,), (2,), 2)}
    assert observer.episodes > 5
    assert evaluation.last_mean_reward > 0
    checkpoint = A3C.load(tmp_path / "rl_model_200_steps")
    assert checkpoint.num_timesteps == 200 and not torch.equal(parameters(checkpoint), before)
    with open(tmp_path / "progress.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["train/learning_rate"]]
    assert [float(row["time/total_timesteps"]) for row in rows] == [200, 400]
    assert float(rows[1]["train/learning_rate"]) == pytest.approx(0.01 * (1 - 400 / 415))
    for tag in (
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "time/fps",
        "train/policy_gradient_loss",
        "train/value_loss",
        "train/entropy_loss",
        "train/n_updates",
        "memory/hidden_norm",
        "memory/forget_gate_mean",
        "memory/cell_norm",
        "memory/core_grad_norm",
    ):
        assert math.isfinite(float(rows[1][tag])), tag


def test_saved_models_predict_the_same_and_go_on(tmp_path):
    model = A3C("MemoryPolicy", CARTPOLE, ent_coef=LinearSchedule(0.01, 0.0, 1.0), **ONE_WORKER)
    model.learn(100)
    model.save(tmp_path / "model")
    loaded = A3C.load(tmp_path / "model", env=CARTPOLE)

    obs = np.random.default_rng(0).normal(size=(6, 3, 2)).astype(np.float32)  # [T, B, F]
    states = [None, None]
    for t in range(6):
        starts = np.array([t == 0, t in (0, 3), t == 0])
        actions, states[0] = model.predict(obs[t], states[0], starts, deterministic=True)
        again, states[1] = loaded.predict(obs[t], states[1], starts, deterministic=True)
        by_policy, _ = model.policy.predict(obs[t], states[0], starts, deterministic=True)
        assert np.array_equal(actions, again)
        assert by_policy.shape == actions.shape
        assert all(np.array_equal(a, b) for a, b in zip(*states, strict=True))

    saved, restored = model.policy.optimizer.state_dict()["state"], loaded.policy.optimizer.state_dict()["state"]
    assert saved[0]["step"] == 10
    for i, state in saved.items():
        torch.testing.assert_close(restored[i], state, rtol=0, atol=0)
    assert (loaded.num_timesteps, loaded._n_updates, loaded.workers) == (100, 10, 1)
    assert loaded.ent_coef(0.5) == pytest.approx(0.005)

    loaded.learn(50, reset_num_timesteps=False)
    assert (loaded.num_timesteps, loaded._n_updates) == (150, 15)
    assert loaded.policy.optimizer.state_dict()["state"][0]["step"] == 15
    mean, _ = evaluate_policy(loaded, make_vec_env(CARTPOLE, 3), n_eval_episodes=3)
    assert mean > 0


def test_a_model_goes_on_with_another_optimizer(tmp_path):
    A3C("MemoryPolicy", CARTPOLE, **ONE_WORKER).learn(20).save(tmp_path / "model")
    model = A3C.load(tmp_path / "model", CARTPOLE, optimizer="rmsprop")
    assert type(model.policy.optimizer) is torch.optim.RMSprop and not model.policy.optimizer.state
    model.learn(20, reset_num_timesteps=False)
    assert model.num_timesteps == 40 and "square_avg" in model.policy.optimizer.state_dict()["state"][0]


def test_one_worker_is_reproducible_by_its_seed():
    def trained(seed):
        model = A3C("MemoryPolicy", CARTPOLE, **{**ONE_WORKER, "seed": seed})
        model.learn(30)
        return torch.nn.utils.parameters_to_vector(model.policy.parameters())

    first, again, other = trained(3), trained(3), trained(4)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_model_goes_on_with_its_arguments_and_a_new_seed(tmp_path):
    model = A3C("MemoryPolicy", "CartPole-v1", env_kwargs={"frame_skip": 3}, **ONE_WORKER)
    model.num_timesteps = 40
    model.save(tmp_path / "model")
    loaded = A3C.load(tmp_path / "model", env="CartPole-v1")
    assert loaded.get_env().get_attr("frames_per_step") == [3, 3]
    assert [model.continued_seed(), loaded.continued_seed()] == [40, 40]


def test_the_default_optimizer_is_that_of_the_released_agent():
    defaults = A3C("MemoryPolicy", CARTPOLE, **ONE_WORKER).policy.optimizer.defaults
    assert defaults["amsgrad"] and defaults["eps"] == 1e-3


def leave_a_child(rank, number, connection):
    """Die, but leave a process that holds the pipe."""
    subprocess.Popen(["sleep", "20"], pass_fds=[connection.fileno()])
    os._exit(3)


def test_a_dead_worker_is_noticed_though_its_pipe_is_open(monkeypatch):
    monkeypatch.setattr(pool, "GRACE_SECONDS", 1.0)
    context = torch.multiprocessing.get_context("spawn")
    workers = pool.WorkerPool(context, StepBudget(0, 10, context))
    with pytest.raises(RuntimeError, match="exit code 3"), workers:
        workers.start(1, leave_a_child)
        next(workers.reports())


def test_an_optimizer_of_the_users_takes_its_own_defaults():
    model = A3C("MemoryPolicy", CARTPOLE, **ONE_WORKER, policy_kwargs={"optimizer_class": torch.optim.SGD})
    assert type(model.policy.optimizer) is torch.optim.SGD
    model = A3C("MemoryPolicy", CARTPOLE, **ONE_WORKER, policy_kwargs={"optimizer_kwargs": {"eps": 1e-5}})
    assert model.policy.optimizer.defaults["eps"] == 1e-5 and not model.policy.optimizer.defaults["amsgrad"]


@pytest.mark.parametrize("optimizer_class", [torch.optim.NAdam, torch.optim.Rprop, RMSpropTFLike])
def test_an_optimizer_that_cannot_be_shared_is_named(optimizer_class):
    """One keeps a scalar, the others begin with numbers that are not zero."""
    model = A3C("MemoryPolicy", CARTPOLE, **ONE_WORKER, policy_kwargs={"optimizer_class": optimizer_class})
    with pytest.raises(ValueError, match=rf"cannot share {optimizer_class.__name__}: choose .* such as Adam"):
        model.learn(10)


def test_an_optimizer_without_statistics_can_be_shared():
    model = A3C("MemoryPolicy", CARTPOLE, **ONE_WORKER, policy_kwargs={"optimizer_class": torch.optim.SGD})
    model.learn(10)


# -------------------------------------------------------------------- how a run may end


def act_at(step, action):
    """A callback that does something once, at a number of steps that every run of ``TWO_WORKERS`` passes."""

    def callback(locals_, globals_):
        if locals_["self"].num_timesteps == step:
            return action()
        return True

    return callback


def kill_one_worker():
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    return True


def interrupt_everybody():
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGINT)  # what a terminal does
    signal.raise_signal(signal.SIGINT)
    return True


class Crashing(VecEnvWrapper):
    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        raise BrokenPipeError("the emulator crashed")


def crashing_env(n_envs, seed):
    return Crashing(make_vec_env(CARTPOLE, n_envs, seed=seed))


def test_a_failing_worker_ends_the_run_with_its_traceback():
    model = A3C("MemoryPolicy", crashing_env, **ONE_WORKER)
    with pytest.raises(RuntimeError, match=r"(?s)worker \d failed.*in step_wait.*the emulator crashed"):
        model.learn(10**6)


def test_a_killed_worker_is_replaced(capfd):
    model = A3C("MemoryPolicy", CARTPOLE, **TWO_WORKERS)
    model.learn(800, callback=act_at(200, kill_one_worker))
    assert model.num_timesteps == 800 and has_finite_weights(model.policy)
    assert "killed by signal 9 (Killed): another one takes its place" in capfd.readouterr().err


class Hanging(VecEnvWrapper):
    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        time.sleep(1000)


def hanging_env(n_envs, seed):
    env = make_vec_env(CARTPOLE, n_envs, seed=seed)
    first = multiprocessing.parent_process() is not None and seed == 0
    return Hanging(env) if first else env


def test_a_worker_that_hangs_is_replaced(monkeypatch, capfd):
    monkeypatch.setattr(pool, "GRACE_SECONDS", 1.0)
    model = A3C("MemoryPolicy", hanging_env, **ONE_WORKER, worker_timeout=20.0)
    model.learn(20)
    assert model.num_timesteps == 20
    assert "said nothing for 20 seconds: another one takes its place" in capfd.readouterr().err


def test_too_many_killed_workers_end_the_run():
    model = A3C("MemoryPolicy", CARTPOLE, **TWO_WORKERS, max_restarts=0)
    with pytest.raises(RuntimeError, match=r"worker \d was killed by signal 9"):
        model.learn(10**6, callback=act_at(200, kill_one_worker))


def test_ctrl_c_ends_the_run_with_what_was_learned():
    model = A3C("MemoryPolicy", CARTPOLE, **TWO_WORKERS)
    before = torch.nn.utils.parameters_to_vector(model.policy.parameters())
    with pytest.raises(KeyboardInterrupt):
        model.learn(10**6, callback=act_at(200, interrupt_everybody))
    assert multiprocessing.active_children() == []
    assert model.num_timesteps >= 200
    assert model._n_updates * 10 == model.num_timesteps
    after = torch.nn.utils.parameters_to_vector(model.policy.parameters())
    assert not torch.equal(before, after) and after.isfinite().all()


NOTEBOOK = f"""
import multiprocessing, time, torch
from typing import NamedTuple
from relmem.agents import A3C, MemoryCore, register_core

class Sum(NamedTuple):
    total: torch.Tensor

@register_core("summing")
class SummingCore(MemoryCore):
    def __init__(self, input_size, output_size=None):
        super().__init__(input_size, output_size or input_size, Sum, ((input_size,),))

    def step(self, x, state):
        total = state.total + x
        return total, Sum(total)

def report(locals_, globals_):
    if locals_["self"].num_timesteps == 20:
        print(*[process.pid for process in multiprocessing.active_children()], flush=True)
    return True

model = A3C("MemoryPolicy", "{CARTPOLE}", workers=2, envs_per_worker=2, t_max=5, policy_kwargs=dict(core="summing"))
model.learn(10**7, report)
"""


@pytest.mark.skipif(not os.path.exists("/proc"), reason="looks for processes in /proc")
def test_workers_know_a_core_of_a_notebook_and_end_with_the_main_process():
    with subprocess.Popen([sys.executable, "-c", NOTEBOOK], stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout is not None
        pids = [int(pid) for pid in main.stdout.readline().split()]
        assert len(pids) == 2
        main.kill()
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlive the main process"
        time.sleep(0.1)


HANGING = """
import multiprocessing, sys, time
from stable_baselines3.common.vec_env import DummyVecEnv
from relmem.agents import A3C
sys.path.insert(0, TESTS)
from counter_env import Counter

class Hanging(Counter):
    def step(self, action):
        print(multiprocessing.current_process().pid, flush=True)
        time.sleep(600)

def environments(n_envs, seed):
    return DummyVecEnv([lambda: Hanging(5)] * n_envs)

if __name__ == "__main__":
    A3C("MemoryPolicy", environments, workers=1, envs_per_worker=1).learn(100)
"""


@pytest.mark.skipif(not os.path.exists("/proc"), reason="looks for processes in /proc")
def test_a_worker_that_hangs_in_its_environment_ends_with_the_main_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(HANGING.replace("TESTS", repr(os.path.dirname(__file__))))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout is not None
        pid = int(main.stdout.readline())
        main.kill()
    deadline = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < deadline, "the worker outlives the main process"
        time.sleep(0.1)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"  # a zombie waits for whoever adopted it


def test_a_script_without_main_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"from relmem.agents import A3C\nA3C('MemoryPolicy', '{CARTPOLE}', workers=1).learn(100)\n")
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "below `if __name__ == '__main__':`" in result.stderr.splitlines()[-1]


# -------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers.* of at least 1.*got 0"),
        ({"envs_per_worker": -3}, "envs_per_worker must be an integer of at least 1"),
        ({"t_max": 2.5}, "t_max must be an integer of at least 1"),
        ({"gamma": 1.5}, "gamma must be .* from 0 to 1"),
        ({"gamma": lambda left: 0.9}, "gamma must be .* from 0 to 1"),
        ({"learning_rate": math.nan}, "learning_rate must be a number"),
        ({"max_grad_norm": 0}, "max_grad_norm must be .*above 0"),
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"precision": "bf6"}, "did you mean 'bf16'"),
        ({"device": "cuda"}, "A3C trains on the CPU"),
        ({"policy_kwargs": {"core": "lstmm"}}, "did you mean 'lstm'"),
        ({"policy_kwargs": {"use_sde": True}}, "A3C does not draw the noise of use_sde"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        A3C("MemoryPolicy", CARTPOLE, **arguments)


class Normalised(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, observation_space.shape[0])
        self.norm = torch.nn.BatchNorm1d(observation_space.shape[0])

    def forward(self, observations):
        return self.norm(observations)


def test_running_statistics_are_refused_as_workers_do_not_share_them():
    with pytest.raises(ValueError, match="no running statistics, such as those of BatchNorm2d: choose"):
        A3C("MemoryPolicy", CARTPOLE, policy_kwargs={"features_extractor_class": Normalised})


class Averaging(BaseFeaturesExtractor):
    """With a running average of its own making."""

    def __init__(self, observation_space):
        super().__init__(observation_space, observation_space.shape[0])
        self.register_buffer("average", torch.zeros(observation_space.shape[0]))

    def forward(self, observations):
        self.average.lerp_(observations.mean(dim=0), 0.1)
        return observations - self.average


def test_buffers_that_change_are_refused_before_the_first_update():
    model = A3C("MemoryPolicy", CARTPOLE, **ONE_WORKER, policy_kwargs={"features_extractor_class": Averaging})
    before = torch.nn.utils.parameters_to_vector(model.policy.parameters())
    with pytest.raises(RuntimeError, match=r"no buffers such as running statistics, and '.*average' changes"):
        model.learn(100)
    assert torch.equal(before, torch.nn.utils.parameters_to_vector(model.policy.parameters()))


class Noise(torch.nn.Module):
    """Buffers that workers need not share: some are not saved, one comes late, one is not a number."""

    def __init__(self):
        super().__init__()
        self.register_buffer("noise", torch.zeros(2), persistent=False)
        self.register_buffer("late", None)
        self.register_buffer("unknown", torch.full((2,), torch.nan))


def test_scratch_of_each_worker_is_its_own():
    module = Noise()
    before = persistent_buffers(module)
    module.noise.normal_()
    module.late = torch.ones(3)
    require_constant_buffers(module, before)
    module.unknown = torch.zeros(2)
    with pytest.raises(ValueError, match="'unknown' changes in training"):
        require_constant_buffers(module, before)


def test_workers_know_an_environment_that_this_process_has_registered():
    class Mine(gym.wrappers.TimeAwareObservation):
        def __init__(self):
            super().__init__(gym.make("CartPole-v1"))

    gym.register("Mine-v0", Mine)
    try:
        model = A3C("MemoryPolicy", "Mine-v0", **ONE_WORKER).learn(20)
        assert model.num_timesteps >= 20
    finally:
        del gym.registry["Mine-v0"]


@pytest.mark.parametrize(("env_kwargs", "n_threads"), [({}, 1), ({"n_threads": None}, 1), ({"n_threads": 3}, 3)])
def test_a_workers_games_are_stepped_on_one_thread_unless_asked_otherwise(env_kwargs, n_threads, monkeypatch):
    made = []
    monkeypatch.setattr(environments_module, "make_vec_env", lambda id, n_envs, **options: made.append(options))
    environments_module._from_id("ALE/Pong-v5", env_kwargs, None, 2, 0)
    assert made == [{"seed": 0, "n_threads": n_threads}]


def test_environments_that_workers_could_not_build_are_refused():
    with pytest.raises(ValueError, match="not a finished DummyVecEnv: each worker builds"):
        A3C("MemoryPolicy", make_vec_env(CARTPOLE, 1))
    with pytest.raises(ValueError, match="did you mean 'relmem/MaskedCartPole-v0'"):
        A3C("MemoryPolicy", "relmem/MaskedCartPol-v0")
    with pytest.raises(ValueError, match="must return a VecEnv, got "):
        A3C("MemoryPolicy", lambda n_envs, seed: gym.make(CARTPOLE))
    with pytest.raises(ValueError, match="asked for 8 environments and returned 1"):
        A3C("MemoryPolicy", lambda n_envs, seed: make_vec_env(CARTPOLE, 1))
    with pytest.raises(ValueError, match="VecNormalize does not work with A3C"):
        A3C("MemoryPolicy", lambda n_envs, seed: VecNormalize(make_vec_env(CARTPOLE, n_envs)))
    with pytest.raises(ValueError, match=r"must be a function \(n_envs, seed\) -> VecEnv, but: too many"):
        A3C("MemoryPolicy", lambda: make_vec_env(CARTPOLE, 8))
    with pytest.raises(ValueError, match="env_kwargs go with an environment id"):
        A3C("MemoryPolicy", crashing_env, env_kwargs={"frame_skip": 2})


def test_what_cannot_travel_is_refused_before_a_process_starts():
    lock = threading.Lock()

    def factory(n_envs, seed):
        with lock:
            return make_vec_env(CARTPOLE, n_envs, seed=seed)

    with pytest.raises(ValueError, match="cannot be sent"):
        A3C("MemoryPolicy", factory, workers=1).learn(100)


def test_a_model_without_its_environment_says_what_to_do(tmp_path):
    A3C("MemoryPolicy", CARTPOLE, workers=1).save(tmp_path / "model")
    assert A3C.load(tmp_path / "model", workers=None).workers is None  # as many as there are processors
    loaded = A3C.load(tmp_path / "model")
    with pytest.raises(ValueError, match="workers must be an integer of at least 1"):
        A3C.load(tmp_path / "model", workers=0)
    with pytest.raises(ValueError, match="call set_env"):
        loaded.learn(100)
    with pytest.raises(ValueError, match="spaces do not match"):
        loaded.set_env("CartPole-v1")
    loaded.set_env(CARTPOLE)
    assert loaded.get_env().num_envs == loaded.envs_per_worker
