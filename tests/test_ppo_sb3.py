"""Recurrent PPO as an SB3 algorithm: callbacks, pipelines, saving, loading and going on."""

import json
import zipfile

import numpy as np
import pytest
import torch
from counter_env import Counter
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from relmem.agents import A3C, MemoryPPO, load, registered_cores


@pytest.mark.parametrize("change", ["set_parameters", "load_from_vector"])  # which writes to ``.data``
def test_weights_that_a_callback_changes_act_at_once(change):
    env = DummyVecEnv([lambda n=n: Counter(n) for n in (3, 5)])
    model = MemoryPPO("MemoryPolicy", env, n_steps=12, seed=0, learning_rate=0.0, n_epochs=1, precision="bf16")
    other = MemoryPPO("MemoryPolicy", env, n_steps=12, seed=1, precision="bf16")

    def callback(variables, _):
        if variables["n_steps"] == 5:  # the environments have six and two episodes behind them
            if change == "set_parameters":
                model.set_parameters(other.get_parameters())
            else:
                model.policy.load_from_vector(other.policy.parameters_to_vector())
        return True

    model.learn(24, callback=callback)
    buffer, policy = model.buffer, model.policy
    late = slice(6, None)
    assert buffer.starts[6].tolist() == [True, False] and buffer.starts[10].tolist() == [False, True]
    with torch.no_grad():
        values, *_ = policy.evaluate_sequence(
            buffer.obs[late], buffer.actions[late], policy.initial_state(2), buffer.starts[late]
        )
    torch.testing.assert_close(values[:, 0], buffer.values[late][:, 0])
    torch.testing.assert_close(values[4:, 1], buffer.values[10:, 1])


def test_what_a_callback_sees_is_called_as_in_sb3():
    seen = []

    def callback(variables, _):
        seen.append((variables["n_steps"], variables["obs_tensor"][:, 0].tolist(), model._last_obs[:, 0].tolist()))
        assert variables["new_obs"].shape == (2, 1)
        assert variables["clipped_actions"].shape == variables["rewards"].shape == variables["dones"].shape == (2,)
        assert variables["episode_starts"].tolist() == [count == 0 for count in seen[-1][1]]
        return True

    model = MemoryPPO("MemoryPolicy", DummyVecEnv([lambda n=n: Counter(n) for n in (3, 5)]), n_steps=4, n_epochs=1)
    model.learn(8, callback=callback)
    counts = [[0, 0], [1, 1], [2, 2], [0, 3]]
    assert seen == [(step, count, count) for step, count in enumerate(counts)]


def test_what_a_callback_sets_counts_from_the_next_update_on():
    env = DummyVecEnv([lambda: Counter(3)] * 4)
    model = MemoryPPO("MemoryPolicy", env, n_steps=8, n_epochs=1, ent_coef=0.0)
    model.learn(32)
    model.ent_coef, model.clip_range, model.batch_size = 0.3, lambda left: 0.05, 32
    sizes = []
    minibatches = model.buffer.minibatches
    model.buffer.minibatches = lambda n: sizes.append(n) or minibatches(n)
    model.learn(32)
    logged = model.logger.name_to_value
    assert (logged["train/ent_coef"], logged["train/clip_range"], sizes) == (0.3, 0.05, [4])
    for name in ("n_steps", "bptt_length"):
        setattr(model, name, 4)
        with pytest.raises(ValueError, match="n_steps and bptt_length cannot be changed but by load"):
            model.learn(32)
        setattr(model, name, {"n_steps": 8, "bptt_length": None}[name])


@pytest.mark.parametrize("core", registered_cores())
def test_save_load_predict_continue(core, tmp_path):
    env = sb3_make_vec_env("CartPole-v1", n_envs=4, seed=0)
    model = MemoryPPO("MemoryPolicy", env, n_steps=16, n_epochs=1, seed=0, policy_kwargs={"core": core}, ent_coef=0.01)
    model.learn(64)
    model.save(tmp_path / "model")
    loaded = MemoryPPO.load(tmp_path / "model", env=env)
    obs = env.reset()
    action, state = model.predict(obs, deterministic=True)
    same_action, same_state = loaded.predict(obs, deterministic=True)
    np.testing.assert_array_equal(action, same_action)
    np.testing.assert_array_equal(state[0], same_state[0])
    old = model.policy.optimizer.state_dict()["state"]
    for key, entry in loaded.policy.optimizer.state_dict()["state"].items():
        torch.testing.assert_close(entry["exp_avg"], old[key]["exp_avg"])
    loaded.learn(64, reset_num_timesteps=False)
    assert loaded.num_timesteps == 128
    with pytest.raises(ValueError, match="gamma must be"):
        MemoryPPO.load(tmp_path / "model", gamma=5)


def test_loads_with_another_number_of_environments(tmp_path):
    model = MemoryPPO("MemoryPolicy", sb3_make_vec_env("CartPole-v1", n_envs=8), n_steps=16, batch_size=64)
    model.learn(128)
    model.save(tmp_path / "model")
    loaded = MemoryPPO.load(tmp_path / "model", env=sb3_make_vec_env("CartPole-v1", n_envs=3))
    loaded.learn(48)
    assert evaluate_policy(loaded, sb3_make_vec_env("CartPole-v1", n_envs=2), n_eval_episodes=2)[0] > 0
    four = sb3_make_vec_env("CartPole-v1", n_envs=4)
    assert MemoryPPO.load(tmp_path / "model", env=four).batch_size == 64  # it still fits
    assert MemoryPPO.load(tmp_path / "model", env=four, batch_size=16).batch_size == 16
    with pytest.raises(ValueError, match="batch_size 48 does not cut 4 environments"):
        MemoryPPO.load(tmp_path / "model", env=four, batch_size=48)


@pytest.mark.parametrize("name", ["model", "model.zip", "."])
def test_load_finds_out_the_algorithm(name, tmp_path):
    model = MemoryPPO("MemoryPolicy", sb3_make_vec_env("CartPole-v1"), n_steps=8)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / name)
    assert type(loaded) is MemoryPPO
    assert torch.equal(loaded.policy.value_net.weight, model.policy.value_net.weight)
    A3C("MemoryPolicy", "CartPole-v1", workers=1, envs_per_worker=1).save(tmp_path / "model")
    assert type(load(tmp_path / name)) is A3C


def test_a_file_names_its_algorithm_and_a_subclass_is_loaded_as_what_it_is_made_of(tmp_path):
    class Mine(MemoryPPO):
        pass

    Mine("MemoryPolicy", "CartPole-v1", n_steps=8).save(tmp_path / "model")
    assert json.loads(zipfile.ZipFile(tmp_path / "model.zip").read("data"))["algorithm"] == "MemoryPPO"
    assert type(load(tmp_path / "model")) is MemoryPPO and type(Mine.load(tmp_path / "model")) is Mine


@pytest.mark.parametrize("algorithm", [MemoryPPO, A3C])
def test_an_id_is_enough_to_go_on_with(algorithm, tmp_path):
    algorithm("MemoryPolicy", "CartPole-v1").save(tmp_path / "model")
    loaded = load(tmp_path / "model", env="CartPole-v1")
    assert loaded.get_env().reset().shape[1:] == (4,)
    if algorithm is MemoryPPO:
        loaded = MemoryPPO("MemoryPolicy", sb3_make_vec_env("CartPole-v1", n_envs=3))
        loaded.save(tmp_path / "model")
        assert MemoryPPO.load(tmp_path / "model", env="CartPole-v1").n_envs == 3
    loaded.set_env("CartPole-v1")
    assert loaded.get_env().num_envs == loaded.n_envs
    with pytest.raises(ValueError, match="did you mean 'CartPole-v"):
        loaded.set_env("CartPol-v1")


def test_each_algorithm_refuses_what_the_other_saved(tmp_path):
    for algorithm, other in ((MemoryPPO, A3C), (A3C, MemoryPPO)):
        algorithm("MemoryPolicy", "CartPole-v1").save(tmp_path / "model")
        with pytest.raises(ValueError, match=f"{other.__name__} .*another algorithm.*relmem.agents.load"):
            other.load(tmp_path / "model")


def test_a_core_that_is_not_registered_here_asks_for_its_module(tmp_path):
    model = MemoryPPO("MemoryPolicy", "CartPole-v1")
    model.policy_kwargs = {"core": "lstn"}
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"did you mean 'lstm'.*A core of your own is known once its module is"):
        MemoryPPO.load(tmp_path / "model")


def test_load_says_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(ValueError, match="no saved agent"):
        load(tmp_path / "nothing")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step_000000000064.zip").touch()  # the newest one of a run that is not over
    with pytest.raises(ValueError, match=r"step_000000000064.zip' is damaged"):
        load(tmp_path / "run")
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "model.pt").touch()
    for path in (tmp_path / "task", tmp_path / "task" / "model.pt"):
        with pytest.raises(ValueError, match="holds a model of a supervised task"):
            load(path)
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(ValueError, match="damaged, or holds no saved model"):
        load(tmp_path / "text.zip")


@pytest.mark.parametrize("wrap", [SubprocVecEnv, VecFrameStack, VecNormalize, "two keys"])
def test_life_in_an_sb3_pipeline(wrap, tmp_path):
    """Learn with checkpoints, go on in other environments, begin anew; what was seen is what is replayed."""

    class TwoKeys(Counter):
        observation_space = spaces.Dict(step=Counter.observation_space, twice=Counter.observation_space)

        def reset(self, **kwargs):
            obs, info = super().reset(**kwargs)
            return {"step": obs, "twice": 2 * obs}, info

        def step(self, action):
            obs, *rest = super().step(action)
            return {"step": obs, "twice": 2 * obs}, *rest

    def make():
        kind = TwoKeys if wrap == "two keys" else Counter
        if wrap is SubprocVecEnv:
            return SubprocVecEnv([lambda n=n: Counter(n) for n in (3, 5)])
        env = DummyVecEnv([lambda n=n: kind(n) for n in (3, 5)])
        return {VecFrameStack: lambda: VecFrameStack(env, 4), VecNormalize: lambda: VecNormalize(env)}.get(
            wrap, lambda: env
        )()

    model = MemoryPPO("MemoryPolicy", make(), n_steps=8, bptt_length=4, n_epochs=1)
    model.learn(32, callback=CheckpointCallback(8, str(tmp_path)))
    assert MemoryPPO.load(tmp_path / "rl_model_32_steps").num_timesteps == 32
    model.get_env().close()
    model.set_env(make())
    model.learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 48
    model.lr_schedule = lambda _: 0.0
    model.learn(16)
    assert model.num_timesteps == 16
    buffer = model.buffer
    with torch.no_grad():
        values, log_probs, _, _ = model.policy.evaluate_sequence(
            buffer.obs, buffer.actions, buffer.state, buffer.starts
        )
    torch.testing.assert_close(values, buffer.values)
    torch.testing.assert_close(log_probs, buffer.log_probs)
    model.get_env().close()


def test_works_with_callbacks_normalisation_schedules_and_continuous_actions():
    env = VecNormalize(sb3_make_vec_env("Pendulum-v1", n_envs=4, seed=0))
    model = MemoryPPO(
        "MemoryPolicy",
        env,
        n_steps=32,
        clip_range=lambda left: 0.1 + 0.1 * left,
        clip_range_vf=0.2,
        ent_coef=lambda left: 0.01 * left,
        target_kl=0.05,
        bptt_length=8,
    )
    callback = EvalCallback(
        VecNormalize(sb3_make_vec_env("Pendulum-v1"), training=False), n_eval_episodes=1, eval_freq=32
    )
    bootstrapped = []

    def compare(variables):
        """The rewards of the last step but one, as given and as stored, where a time limit cut the episodes."""
        step = variables["n_steps"] - 1
        if step >= 0 and variables["episode_starts"].all():
            row, chunk = step % 8, step // 8
            bootstrapped.append(model.buffer.rewards[row, 4 * chunk : 4 * chunk + 4] - rewards[-1])
        rewards.append(torch.as_tensor(variables["rewards"].copy()))
        return True

    rewards = []
    model.learn(1024, callback=[callback, FunctionCallback(compare)])  # 256 steps each: the limit comes after 200
    assert len(bootstrapped) == 1 and bootstrapped[0].ne(0).all() and bootstrapped[0].isfinite().all()
    assert callback.last_mean_reward > -np.inf
    logged = model.logger.name_to_value
    assert {"train/approx_kl", "train/clip_fraction", "memory/core_grad_norm", "memory/hidden_norm"} <= set(logged)


class FunctionCallback(BaseCallback):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def _on_step(self):
        return self.function(self.locals)


def first_observations(model, steps=40):
    seen = []
    model.learn(steps, callback=lambda frame, _: not seen.append(frame["new_obs"].copy()), reset_num_timesteps=False)
    return np.concatenate(seen)


@pytest.mark.parametrize("by_id", [True, False])
def test_a_training_that_is_continued_does_not_repeat_its_episodes(by_id, tmp_path):
    def env():
        return "CartPole-v1" if by_id else sb3_make_vec_env("CartPole-v1")

    model = MemoryPPO("MemoryPolicy", env(), n_steps=8, seed=3)
    begun = first_observations(model)
    again = first_observations(MemoryPPO("MemoryPolicy", env(), n_steps=8, seed=3))
    assert np.array_equal(begun, again)
    model.save(tmp_path / "model")
    loads = [first_observations(MemoryPPO.load(tmp_path / "model", env=env())) for _ in range(2)]
    assert np.array_equal(*loads) and not np.array_equal(loads[0][0], begun[0])


def test_a_model_that_is_loaded_begins_new_episodes_with_a_new_memory(tmp_path):
    env = sb3_make_vec_env("CartPole-v1")
    MemoryPPO("MemoryPolicy", env, n_steps=8).learn(8).save(tmp_path / "model")
    loaded = MemoryPPO.load(tmp_path / "model", env=env, force_reset=False)
    starts = []
    loaded.learn(8, callback=lambda frame, _: starts.append(frame["episode_starts"].item()), reset_num_timesteps=False)
    assert starts[0] and not any(starts[1:4])


def test_learning_needs_an_environment(tmp_path):
    MemoryPPO("MemoryPolicy", "CartPole-v1").save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"no environment to learn in: call set_env\(env\) first"):
        MemoryPPO.load(tmp_path / "model").learn(8)


def test_a_saved_model_is_without_its_rollout(tmp_path):
    MemoryPPO("MemoryPolicy", "CartPole-v1", n_steps=8).learn(8).save(tmp_path / "model")
    data = json.loads(zipfile.ZipFile(tmp_path / "model.zip").read("data"))
    assert not {"buffer", "rollout_buffer", "_state", "_last_obs"} & set(data)
