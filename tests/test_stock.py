"""Stock pipelines with the real packages: rl_zoo3, RecurrentPPO, callbacks, wrappers, loggers, films."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack, VecNormalize, VecVideoRecorder

from relmem.agents import MemoryActorCriticPolicy, MemoryPPO
from relmem.envs import make_vec_env

HYPERPARAMETERS = Path(__file__).parent.parent / "docs" / "rl_zoo3.yml"
ZOO = """
import sys
import rl_zoo3
from rl_zoo3 import enjoy, train
from relmem.agents import MemoryPPO

rl_zoo3.ALGOS["memory_ppo"] = MemoryPPO
for algorithm, file in zip(("ppo_lstm", "memory_ppo"), sys.argv[1:]):
    which = ["zoo", "--algo", algorithm, "--gym-packages", "relmem.envs", "--env", "relmem/MaskedCartPole-v0"]
    sys.argv = [*which, "--conf-file", file, "-n", "1024", "--eval-freq", "512", "--eval-episodes", "1"]
    train.train()
    sys.argv = [*which, "--folder", "logs", "--no-render", "-n", "100", "--load-best"]
    enjoy.enjoy()
"""


@pytest.mark.slow
def test_rl_zoo3_trains_and_plays_our_policy_and_our_algorithm(tmp_path):
    (tmp_path / "ours.yml").write_text(
        "relmem/MaskedCartPole-v0: {n_envs: 8, n_timesteps: 1024, policy: MemoryPolicy, normalize: true, n_steps: 64}"
    )
    command = [sys.executable, "-c", ZOO, str(HYPERPARAMETERS), "ours.yml"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("Mean reward: ") == 2
    for algorithm in ("ppo_lstm", "memory_ppo"):
        folder = tmp_path / "logs" / algorithm / "relmem-MaskedCartPole-v0_1"
        assert (folder / "best_model.zip").exists() and (folder / folder.name[:-2] / "vecnormalize.pkl").exists()
    core = RecurrentPPO.load(tmp_path / "logs/ppo_lstm/relmem-MaskedCartPole-v0_1/best_model.zip").policy.core_name
    assert core == "gru"


def test_the_hyperparameters_for_rl_zoo3_make_policies():
    import yaml

    for name, given in yaml.safe_load(HYPERPARAMETERS.read_text()).items():
        env = make_vec_env("relmem/MaskedCartPole-v0" if name == "default" else name, given["n_envs"])
        assert given["policy"] == f"relmem.agents.{MemoryActorCriticPolicy.__name__}"
        kwargs = eval(given["policy_kwargs"])  # as rl_zoo3 does
        model = RecurrentPPO(
            MemoryActorCriticPolicy, env, n_steps=given["n_steps"], batch_size=given["batch_size"], policy_kwargs=kwargs
        )  # fmt: skip
        assert model.policy.core_name == kwargs["core"]


@pytest.mark.parametrize("algorithm", [RecurrentPPO, MemoryPPO])
def test_a_pipeline_of_all_that_sb3_has(algorithm, tmp_path):
    """Processes, monitors, stacked frames, normalisation, callbacks, every log; then from the files alone."""

    def make(training):
        env = sb3_make_vec_env(
            "CartPole-v1", 2, seed=0, monitor_dir=str(tmp_path / "monitor") if training else None,
            vec_env_cls=SubprocVecEnv if training else None,
        )  # fmt: skip
        return VecNormalize(VecFrameStack(env, 2), training=training, norm_reward=training)

    env, test_env = make(True), make(False)
    stop = StopTrainingOnRewardThreshold(1.0)  # the first evaluation is good enough
    callbacks = [
        CheckpointCallback(32, str(tmp_path), save_vecnormalize=True),
        EvalCallback(test_env, callback_on_new_best=stop, eval_freq=32, n_eval_episodes=2, log_path=str(tmp_path)),
    ]
    kwargs = {"core": "stm", "core_kwargs": {"queries": 2, "item_size": 8, "relation_size": 4}}
    model = algorithm(MemoryActorCriticPolicy, env, n_steps=16, batch_size=32, n_epochs=1, policy_kwargs=kwargs)
    model.set_logger(configure(str(tmp_path / "log"), ["csv", "json", "log", "tensorboard"]))
    try:
        model.learn(1024, callback=callbacks)
    finally:
        env.close()
    # A rollout that a callback ends is not learned from, and does not count (docs/agents.md).
    assert model.num_timesteps == (64 if algorithm is RecurrentPPO else 32)
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (1, 2)
    assert len(load_results(str(tmp_path / "monitor"))) > 0
    lines = [json.loads(line) for line in (tmp_path / "log" / "progress.json").read_text().splitlines()]
    assert any("rollout/ep_rew_mean" in line for line in lines) and any("eval/mean_reward" in line for line in lines)
    assert {"progress.csv", "log.txt"} <= {path.name for path in (tmp_path / "log").iterdir()}

    saved = algorithm.load(tmp_path / "rl_model_64_steps")
    again = VecNormalize.load(str(tmp_path / "rl_model_vecnormalize_64_steps.pkl"), make(False).venv)
    again.training = again.norm_reward = False
    np.testing.assert_allclose(again.obs_rms.mean, env.obs_rms.mean)
    mean, _ = evaluate_policy(saved, again, n_eval_episodes=2)
    assert mean > 0


def test_sb3s_recorder_films_an_agent(tmp_path):
    pytest.importorskip("moviepy")
    env = make_vec_env("ALE/Pong-v5", 2, seed=0)
    model = MemoryPPO("MemoryPolicy", env, n_steps=8, policy_kwargs={"features": "small", "core": "gru"})
    film = VecVideoRecorder(env, str(tmp_path), record_video_trigger=lambda step: step == 0, video_length=5)
    obs, state, starts = film.reset(), None, None
    for _ in range(6):
        actions, state = model.predict(obs, state, starts)
        obs, _, starts, _ = film.step(actions)
    film.close()
    (file,) = tmp_path.glob("*.mp4")
    assert file.stat().st_size > 1000
