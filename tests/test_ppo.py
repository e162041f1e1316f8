"""Recurrent PPO: sequences, advantages, learning, saving and bad arguments."""

import json
import zipfile

import numpy as np
import pytest
import torch
from counter_env import ACTION_SPACES, AnyAction, Counter
from gymnasium import spaces
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from relmem.agents import A3C, MemoryPPO, interaction, load, make_core, precision, registered_cores
from relmem.agents.buffer import SequenceBuffer
from relmem.agents.interaction import values_after_timeout
from relmem.agents.ppo import minibatch_shape
from relmem.agents.precision import autocast_dtype
from relmem.envs import make_vec_env


def collected(env, **kwargs):
    model = MemoryPPO("MemoryPolicy", env, seed=0, n_epochs=1, **kwargs)
    model.learn(1)
    return model


@pytest.mark.parametrize("bptt_length", [None, 4])
def test_sequences_hold_the_trace_of_each_environment(bptt_length):
    env = DummyVecEnv([lambda n=n: Counter(n) for n in (3, 5)])
    buffer = collected(env, n_steps=12, bptt_length=bptt_length).buffer
    length = bptt_length or 12
    time = torch.stack([torch.arange(12) % 3, torch.arange(12) % 5], dim=1)  # [T, N]
    expected = time.view(12 // length, length, 2).transpose(0, 1).reshape(length, -1)  # [L, C * N]
    torch.testing.assert_close(buffer.obs.squeeze(-1), expected.float())
    assert torch.equal(buffer.starts, expected == 0)


def test_chunk_states_are_those_the_rollout_passed_through():
    env = DummyVecEnv([lambda n=n: Counter(n) for n in (3, 5)])
    model = MemoryPPO("MemoryPolicy", env, n_steps=12, bptt_length=4, seed=0, learning_rate=0.0, n_epochs=1)
    model.learn(24)
    buffer, policy = model.buffer, model.policy
    with torch.no_grad():
        values, log_probs, _, _ = policy.evaluate_sequence(buffer.obs, buffer.actions, buffer.state, buffer.starts)
        first = type(buffer.state)(*(leaf[:2] for leaf in buffer.state))
        *_, after = policy.evaluate_sequence(buffer.obs[:, :2], buffer.actions[:, :2], first, buffer.starts[:, :2])
    torch.testing.assert_close(values, buffer.values)
    torch.testing.assert_close(log_probs, buffer.log_probs)
    for end_of_first, start_of_second in zip(after, buffer.state, strict=True):
        torch.testing.assert_close(end_of_first, start_of_second[2:4])


def test_learned_initial_states_are_stored_as_numbers():
    env = make_vec_env("relmem/MaskedCartPole-v0", 2)
    small = dict(core="stm", core_kwargs=dict(queries=1, item_size=4))
    model = MemoryPPO("MemoryPolicy", env, n_steps=8, bptt_length=4, n_epochs=2, policy_kwargs=small)
    model.learn(16)
    assert not any(leaf.requires_grad for leaf in model.buffer.state)


def test_advantages_match_the_definition():
    """Against GAE written as the double sum over the rest of the episode."""
    torch.manual_seed(0)
    T, N, gamma, lam = 9, 3, 0.9, 0.8
    buffer = SequenceBuffer(T, N, T, spaces.Box(-1, 1, (1,)), spaces.Discrete(2), make_core("identity", 1), "cpu")
    buffer.rewards.normal_()
    buffer.values.normal_()
    buffer.starts.copy_(torch.rand(T, N) < 0.3)
    last_values, last_starts = torch.randn(N), torch.tensor([True, False, False])
    buffer.compute_advantages(last_values, last_starts, gamma, lam)
    values = torch.cat([buffer.values, last_values[None]])
    starts = torch.cat([buffer.starts, last_starts[None]])
    for n in range(N):
        for t in range(T):
            expected, weight = 0.0, 1.0
            for k in range(t, T):
                next_value = 0.0 if starts[k + 1, n] else values[k + 1, n]
                expected += weight * (buffer.rewards[k, n] + gamma * next_value - values[k, n])
                if starts[k + 1, n]:
                    break
                weight *= gamma * lam
            assert buffer.advantages[t, n] == pytest.approx(float(expected), abs=1e-5)
    torch.testing.assert_close(buffer.returns, buffer.advantages + buffer.values)


def test_a_time_limit_is_bootstrapped_and_a_real_end_is_not():
    kwargs = dict(n_steps=3, gamma=0.5, learning_rate=0.0)
    ended = collected(DummyVecEnv([lambda: Counter(3)]), **kwargs)
    cut = collected(DummyVecEnv([lambda: Counter(3, truncate=True)]), **kwargs)
    assert ended.buffer.rewards.flatten().tolist() == [1, 1, 1]
    state = cut.policy.initial_state(1)
    obs = torch.arange(4.0).view(4, 1, 1)
    starts = torch.tensor([[True], [False], [False], [False]])
    with torch.no_grad():
        values, *_ = cut.policy.evaluate_sequence(obs, torch.zeros(4, 1, dtype=torch.long), state, starts)
    # The limit cuts the episode after its third step; the observation it ends on is number 3.
    assert cut.buffer.rewards[2, 0].item() == pytest.approx(1 + 0.5 * values[3, 0].item(), abs=1e-5)
    assert cut.buffer.rewards[:2].flatten().tolist() == [1, 1]


@pytest.mark.parametrize("clip_range_vf", [None, 0.1])
@pytest.mark.parametrize("rewards", [1.0, 7.0])  # returns of a variance below and above 1
def test_an_update_follows_the_gradient_of_the_published_loss(rewards, clip_range_vf):
    class Paying(Counter):
        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, rewards, *rest

    rate = 0.0
    model = MemoryPPO(
        "MemoryPolicy",
        DummyVecEnv([lambda n=n: Paying(n) for n in (2, 3)]),
        learning_rate=lambda _: rate,
        n_steps=12,
        batch_size=24,
        n_epochs=1,
        gamma=0.5,
        ent_coef=0.02,
        vf_coef=0.7,
        clip_range_vf=clip_range_vf,
        max_grad_norm=1e9,
        seed=0,
        policy_kwargs={"optimizer_class": torch.optim.SGD},
    )
    model.learn(1)
    policy, buffer = model.policy, model.buffer
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():  # so that ratios and values have moved out of their ranges
            parameter += 0.2 * torch.randn_like(parameter)

    values, log_probs, entropies, _ = policy.evaluate_sequence(buffer.obs, buffer.actions, buffer.state, buffer.starts)
    advantages = (buffer.advantages - buffer.advantages.mean()) / buffer.advantages.std()
    ratios = log_probs.exp() / buffer.log_probs.exp()
    outside = torch.where(advantages > 0, ratios > 1.2, ratios < 0.8)
    assert 0 < outside.sum() < outside.numel()
    gains = torch.where(outside, torch.where(advantages > 0, 1.2, 0.8), ratios) * advantages
    if clip_range_vf is not None:
        moved = values - buffer.values
        values = torch.where(moved.abs() > 0.1, buffer.values + 0.1 * moved.sign(), values)
    errors = (values - buffer.returns) ** 2 / max(1.0, buffer.returns.var(correction=0).item())
    loss = (-gains + 0.7 * errors - 0.02 * entropies).mean()
    parameters = list(policy.parameters())
    expected = [p - 0.1 * g for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True)]
    rate = 0.1
    model.train()
    for parameter, reference in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter, reference, atol=1e-5, rtol=1e-4)


def test_an_update_ends_where_the_policy_has_moved_too_far():
    model = collected(DummyVecEnv([lambda: Counter(3)]), n_steps=12, target_kl=0.01)
    with torch.no_grad():
        model.policy.action_net.bias[0] += 3
    before = torch.nn.utils.parameters_to_vector(model.policy.parameters())
    model.train()
    assert torch.equal(before, torch.nn.utils.parameters_to_vector(model.policy.parameters()))


def test_a_loss_that_is_not_finite_spoils_nothing():
    model = collected(DummyVecEnv([lambda: Counter(3)]), n_steps=12)
    before = torch.nn.utils.parameters_to_vector(model.policy.parameters())
    model.buffer.returns.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        model.train()
    assert torch.equal(before, torch.nn.utils.parameters_to_vector(model.policy.parameters()))


def test_a_gradient_that_is_not_finite_spoils_nothing():
    model = collected(DummyVecEnv([lambda: Counter(3)]), n_steps=12, normalize_advantage=False)
    before = torch.nn.utils.parameters_to_vector(model.policy.parameters())
    model.buffer.advantages.fill_(1.0)
    model.buffer.log_probs.fill_(-100.0)  # the loss of a ratio that overflows is clipped, its gradient is 0 times inf
    with pytest.raises(FloatingPointError, match="the norm of its gradient nan"):
        model.train()
    assert torch.equal(before, torch.nn.utils.parameters_to_vector(model.policy.parameters()))


def test_what_is_replayed_is_what_was_seen_under_normalisation():
    class Bytes(Counter):
        observation_space = spaces.Box(0, 255, (1,), np.uint8)

    env = VecNormalize(DummyVecEnv([lambda: Bytes(7), lambda: Bytes(5)]))
    model = MemoryPPO("MemoryPolicy", env, n_steps=16, n_epochs=1, learning_rate=0.0).learn(64)
    buffer = model.buffer
    with torch.no_grad():
        values, log_probs, _, _ = model.policy.evaluate_sequence(
            buffer.obs, buffer.actions, buffer.state, buffer.starts
        )
    assert buffer.obs.frac().any()
    torch.testing.assert_close(values, buffer.values)
    torch.testing.assert_close(log_probs, buffer.log_probs)


def test_the_last_observation_of_an_episode_that_is_not_finite_is_named_with_its_environment():
    model = MemoryPPO("MemoryPolicy", DummyVecEnv([lambda: Counter(3)] * 3), n_steps=8)
    infos = [{}, {}, {"TimeLimit.truncated": True, "terminal_observation": np.full(1, np.nan, np.float32)}]
    with pytest.raises(FloatingPointError, match="environment 2 gave a last observation that is not finite"):
        values_after_timeout(model.policy, model.policy.initial_state(3), np.array([False, False, True]), infos)


@pytest.mark.parametrize("algorithm", [MemoryPPO, A3C])
@pytest.mark.parametrize("what", ["observation", "reward"])
def test_an_environment_that_is_not_finite_is_named(algorithm, what):
    class Broken(Counter):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            broken = self.length == 5 and self.t == 3
            return (
                (obs * np.nan, reward, *rest)
                if broken and what == "observation"
                else (obs, np.inf if broken and what == "reward" else reward, *rest)
            )

    def make(n_envs=2, seed=0):
        return DummyVecEnv([lambda n=n: Broken(n) for n in (4, 5)])

    options = {"n_steps": 8} if algorithm is MemoryPPO else {"workers": 1, "envs_per_worker": 2}
    model = algorithm("MemoryPolicy", make() if algorithm is MemoryPPO else make, **options)
    with pytest.raises(FloatingPointError, match=f"environment 1 gave a {what} that is not finite"):
        model.learn(64)


def test_a_training_stopped_at_the_end_of_an_episode_goes_on_with_the_next():
    model = MemoryPPO("MemoryPolicy", DummyVecEnv([lambda: Counter(3)]), n_steps=6)
    model.learn(100, callback=lambda local, _: local["self"].num_timesteps < 3)
    model.learn(6, reset_num_timesteps=False)
    assert model.buffer.obs.flatten().tolist() == [0, 1, 2, 0, 1, 2]
    assert model.buffer.starts.flatten().tolist() == [True, False, False] * 2


@pytest.mark.parametrize("space", ACTION_SPACES, ids=str)
def test_every_action_space(space):
    model = collected(DummyVecEnv([lambda: AnyAction(space), lambda: AnyAction(space)]), n_steps=8)
    with torch.no_grad():
        _, log_probs, _, _ = model.policy.evaluate_sequence(
            model.buffer.obs, model.buffer.actions, model.buffer.state, model.buffer.starts
        )
    assert log_probs.isfinite().all()
    assert space.contains(model.predict(np.zeros(1, np.float32))[0])


def test_an_id_means_the_same_as_everywhere_in_relmem():
    assert MemoryPPO("MemoryPolicy", "PongNoFrameskip-v4", n_steps=8).observation_space.shape == (1, 84, 84)
    with pytest.raises(ValueError, match="did you mean"):
        MemoryPPO("MemoryPolicy", "PongNoFrameskip-v5")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("core", registered_cores())
def test_training_on_cuda(core, tmp_path):
    env = make_vec_env("relmem/MaskedCartPole-v0", 4)
    model = MemoryPPO("MemoryPolicy", env, n_steps=16, device="cuda", policy_kwargs={"core": core}).learn(128)
    model.save(tmp_path / "model")
    loaded = MemoryPPO.load(tmp_path / "model", env=env, device="cuda")
    loaded.learn(64, reset_num_timesteps=False)
    assert loaded.num_timesteps == 192 and loaded.policy.value_net.weight.is_cuda


def test_rewards_are_clipped_for_learning_only():
    class Rich(Counter):
        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, 7.0, *rest

    model = collected(sb3_make_vec_env(lambda: Rich(4), 1), n_steps=8, clip_reward=1.0)
    assert model.buffer.rewards.max() == 1
    assert model.ep_info_buffer[0]["r"] == 28


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


def test_state_storage_of_the_published_stm_stays_small():
    """64 environments x 128 steps: one state per sequence, not per step (stock layout: 2.7 GB)."""
    core = make_core("stm", 64, queries=8, item_size=96)
    buffer = SequenceBuffer(128, 64, 128, spaces.Box(0, 255, (1,), np.uint8), spaces.Discrete(6), core, "cpu")
    assert sum(leaf.nbytes for leaf in buffer.state) < 64e6


@pytest.mark.parametrize(
    ("n_steps", "n_envs", "bptt", "batch", "expected"),
    [
        (128, 8, None, None, (128, 2)),
        (128, 8, 32, None, (32, 8)),
        (128, 7, None, None, (128, 7)),
        (100, 1, None, None, (100, 1)),
        (128, 8, 64, 256, (64, 4)),
    ],
)
def test_minibatches_are_whole_sequences(n_steps, n_envs, bptt, batch, expected):
    assert minibatch_shape(n_steps, n_envs, bptt, batch) == expected


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(bptt_length=7), "the nearest that does is 8"),
        (dict(batch_size=100), "the nearest that does is 128"),
        (dict(batch_size=0), "batch_size must be"),
        (dict(n_steps=-1), "n_steps must be"),
        (dict(n_epochs=0), "n_epochs must be"),
        (dict(gamma=1.5), "gamma must be"),
        (dict(vf_coef=lambda left: 0.5), "vf_coef must be a number"),
        (dict(policy_kwargs=dict(use_sde=True)), "does not draw the noise of use_sde"),
        (dict(gae_lambda=float("nan")), "gae_lambda must be"),
        (dict(learning_rate=-1.0), "learning_rate must be"),
        (dict(clip_range=0.0), "clip_range must be"),
        (dict(max_grad_norm=0.0), "max_grad_norm must be"),
        (dict(precision="bf61"), "did you mean 'bf16'"),
    ],
)
def test_bad_arguments_get_one_clear_sentence(kwargs, message):
    env = sb3_make_vec_env("CartPole-v1", n_envs=2)
    with pytest.raises(ValueError, match=message):
        MemoryPPO("MemoryPolicy", env, **{"n_steps": 64, **kwargs})


def test_precision_auto_follows_the_hardware(monkeypatch):
    cpu = torch.device("cpu")
    for native, dtype in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(precision, "has_native_bf16", lambda device, native=native: native)
        assert autocast_dtype("auto", cpu) == dtype
    assert autocast_dtype("fp32", cpu) is None
    assert autocast_dtype("bf16", cpu) == torch.bfloat16


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
        with pytest.raises(
            ValueError, match=f"is no argument of {other.__name__}: if it came with the file, use relmem.agents.load"
        ):
            other.load(tmp_path / "model")


@pytest.mark.parametrize("algorithm", [MemoryPPO, A3C])
def test_without_an_environment_there_is_no_policy(algorithm):
    with pytest.raises(ValueError, match=f"{algorithm.__name__} needs an environment"):
        algorithm("MemoryPolicy", None)


def test_a_core_that_is_not_registered_here_asks_for_its_module(tmp_path):
    model = MemoryPPO("MemoryPolicy", "CartPole-v1")
    model.policy_kwargs = {"core": "lstn"}
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"did you mean 'lstm'.*A core of your own is known once its module is"):
        MemoryPPO.load(tmp_path / "model")


def test_without_a_seed_the_environment_has_none():
    starts = [MemoryPPO("MemoryPolicy", "CartPole-v1").get_env().reset() for _ in range(2)]
    assert not np.array_equal(*starts)


def test_load_says_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(ValueError, match="no saved agent"):
        load(tmp_path / "nothing")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step_000000000064.zip").touch()
    with pytest.raises(ValueError, match=r"is not over, but has '.*step_000000000064.zip'"):
        load(tmp_path / "run")
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(ValueError, match="not a saved agent"):
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


def test_same_seed_same_parameters():
    def train():
        env = sb3_make_vec_env("CartPole-v1", n_envs=2, seed=5)
        model = MemoryPPO("MemoryPolicy", env, n_steps=32, n_epochs=2, seed=5).learn(192)
        return torch.nn.utils.parameters_to_vector(model.policy.parameters())

    assert torch.equal(train(), train())


def test_works_with_callbacks_normalisation_schedules_and_continuous_actions(monkeypatch):
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
    values = []
    monkeypatch.setattr(
        interaction, "values_after_timeout", lambda *args: values.append(values_after_timeout(*args)) or values[-1]
    )
    model.learn(1024, callback=callback)  # 256 steps each, of which the limit comes after 200
    assert len(values) == 1 and values[0].ne(0).all() and values[0].isfinite().all()
    assert callback.last_mean_reward > -np.inf
    logged = model.logger.name_to_value
    assert {"train/approx_kl", "train/clip_fraction", "memory/core_grad_norm", "memory/hidden_norm"} <= set(logged)


def test_learns_masked_cartpole():
    """Without velocities, only memory balances the pole: 'identity' stays below 60."""
    env = make_vec_env("relmem/MaskedCartPole-v0", 8, seed=0)
    model = MemoryPPO(
        "MemoryPolicy",
        env,
        learning_rate=2e-3,
        n_steps=128,
        n_epochs=10,
        gamma=0.98,
        seed=1,
        policy_kwargs=dict(core="lstm", core_kwargs=dict(hidden_size=64), net_arch=[64]),
    )
    model.learn(45_000)
    assert np.mean([episode["r"] for episode in model.ep_info_buffer]) > 120


def first_observations(model, steps=40):
    seen = []
    model.learn(steps, callback=lambda frame, _: seen.append(frame["new_obs"].copy()), reset_num_timesteps=False)
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


def test_memory_and_observation_stay_together_when_a_step_is_interrupted(monkeypatch):
    model = MemoryPPO("MemoryPolicy", sb3_make_vec_env("CartPole-v1"), n_steps=8).learn(8)
    before = model._last_obs, model._state

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(model.env, "step_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.learn(8, reset_num_timesteps=False)
    assert model._last_obs is before[0] and model._state is before[1]


def test_learning_needs_an_environment(tmp_path):
    MemoryPPO("MemoryPolicy", "CartPole-v1").save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"no environment to learn in: call set_env\(env\) first"):
        MemoryPPO.load(tmp_path / "model").learn(8)


def test_numbers_may_be_those_of_numpy():
    numbers = dict.fromkeys(("learning_rate", "clip_range", "clip_range_vf", "ent_coef"), np.float32(0.01))
    MemoryPPO("MemoryPolicy", "CartPole-v1", n_steps=8, n_epochs=1, **numbers).learn(8)


@pytest.mark.parametrize("algorithm", [MemoryPPO, A3C])
def test_spaces_that_do_not_count_from_zero_are_refused(algorithm):
    class Shifted(AnyAction):
        def __init__(self):
            super().__init__(spaces.Discrete(3, start=1))

    env = DummyVecEnv([Shifted])
    with pytest.raises(ValueError, match=r"counts from 0, but the action_space has Discrete\(3, start=1\): take its"):
        algorithm(
            "MemoryPolicy", env if algorithm is MemoryPPO else lambda n_envs, seed: DummyVecEnv([Shifted] * n_envs)
        )


def test_minibatches_keep_what_belongs_together():
    buffer = collected(DummyVecEnv([lambda: Counter(3)] * 2), n_steps=12, bptt_length=4).buffer
    number = torch.arange(6.0)  # of each column
    for stored in (buffer.values, buffer.log_probs, buffer.advantages, buffer.returns, buffer.actions):
        stored.copy_(number.expand(4, 6))
    buffer.obs.copy_(number.view(1, 6, 1).expand(4, 6, 1))
    for leaf in buffer.state:
        leaf.copy_(number.unsqueeze(1).expand_as(leaf))
    seen = []
    for batch in buffer.minibatches(2):
        columns = batch.returns[0]
        for part in (batch.values, batch.log_probs, batch.advantages, batch.actions, batch.obs[..., 0]):
            assert torch.equal(part[0].float(), columns)
        assert all(torch.equal(leaf[:, 0], columns) for leaf in batch.state)
        seen += columns.tolist()
    assert sorted(seen) == number.tolist()


def test_a_rollout_ends_with_the_advantages_of_its_own_gamma_and_lambda():
    env = DummyVecEnv([lambda n=n: Counter(n) for n in (3, 5)])
    model = collected(env, n_steps=7, gamma=0.9, gae_lambda=0.5, learning_rate=0.0)
    found, starts = model.buffer.advantages.clone(), torch.as_tensor(model._last_episode_starts)
    with torch.no_grad():
        last_values = model.policy.value(torch.as_tensor(model._last_obs), model._state, starts)
    model.buffer.compute_advantages(last_values, starts, 0.9, 0.5)
    torch.testing.assert_close(found, model.buffer.advantages)


def test_schedules_go_on():
    env = DummyVecEnv([lambda: Counter(3)])
    schedules = {"clip_range": lambda left: 0.1 + left, "ent_coef": lambda left: left}
    logged = MemoryPPO("MemoryPolicy", env, n_steps=8, n_epochs=1, **schedules).learn(32).logger.name_to_value
    assert (logged["train/clip_range"], logged["train/ent_coef"]) == (0.1, 0.0)


def change_by_sgd(**arguments):
    env = DummyVecEnv([lambda n=n: Counter(n) for n in (3, 5)])
    sgd = {"optimizer_class": torch.optim.SGD}
    model = collected(env, n_steps=12, batch_size=24, policy_kwargs=sgd, learning_rate=0.0, **arguments)
    model.lr_schedule = lambda _: 1.0
    before = torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()
    model.train()
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach() - before


def test_gradients_are_clipped_and_advantages_normalised_if_asked_for():
    assert change_by_sgd(max_grad_norm=0.01).norm().item() == pytest.approx(0.01, rel=1e-3)
    changes = [change_by_sgd(normalize_advantage=normalize, max_grad_norm=1e9) for normalize in (True, False)]
    assert not torch.allclose(*changes)


def test_no_further_epoch_begins_where_the_policy_has_moved_too_far():
    env = DummyVecEnv([lambda: Counter(3)] * 2)
    model = MemoryPPO("MemoryPolicy", env, n_steps=12, n_epochs=3, target_kl=0.01, seed=0).learn(1)
    with torch.no_grad():
        model.policy.action_net.bias[0] += 3
    before = model._n_updates
    model.train()
    assert model._n_updates == before + 1


def test_a_saved_model_is_without_its_rollout(tmp_path):
    collected(DummyVecEnv([lambda: Counter(3)]), n_steps=8).save(tmp_path / "model")
    data = json.loads(zipfile.ZipFile(tmp_path / "model.zip").read("data"))
    assert not {"buffer", "rollout_buffer", "_state", "_last_obs"} & set(data)


def test_the_policy_is_in_training_mode_for_updates_alone():
    model = MemoryPPO("MemoryPolicy", DummyVecEnv([lambda: Counter(3)]), n_steps=8, n_epochs=1)
    modes = set()

    def note(name, method):
        return lambda *args: modes.add((name, model.policy.training)) or method(*args)

    for name in ("act", "evaluate_sequence"):
        setattr(model.policy, name, note(name, getattr(model.policy, name)))
    model.learn(16)
    assert modes == {("act", False), ("evaluate_sequence", True)}
