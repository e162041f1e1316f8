"""Recurrent PPO: sequences, advantages, updates, learning and bad arguments."""

import threading

import numpy as np
import pytest
import torch
from counter_env import ACTION_SPACES, AnyAction, Counter
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from relmem.agents import A3C, MemoryActorCriticPolicy, MemoryPPO, make_core, parts, precision, registered_cores
from relmem.agents.buffer import SequenceBuffer, minibatch_shape
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
    buffer = SequenceBuffer(T, N, T, make_core("identity", 1), "cpu")
    buffer.rewards.normal_()
    buffer.values.normal_()
    buffer.starts.copy_(torch.rand(T, N) < 0.3)
    last_values, last_starts = torch.randn(N), torch.tensor([True, False, False])
    buffer.end_rollout(last_values, last_starts)
    buffer.compute_advantages(gamma, lam)
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


def test_text_means_a_schedule():
    env = DummyVecEnv([lambda: Counter(3)] * 2)
    rates = {"learning_rate": "lin_3e-4", "clip_range": "lin_0.2", "clip_range_vf": "lin_0.4", "ent_coef": "lin_0.1"}
    model = MemoryPPO("MemoryPolicy", env, n_steps=8, n_epochs=1, **rates).learn(16)
    model._current_progress_remaining = 0.5
    model.train()
    logged = model.logger.name_to_value
    names = ("learning_rate", "clip_range", "clip_range_vf", "ent_coef")
    assert [logged[f"train/{name}"] for name in names] == pytest.approx([1.5e-4, 0.1, 0.2, 0.05])


def test_a_single_environment_makes_several_minibatches():
    model = collected(DummyVecEnv([lambda: Counter(3)]), n_steps=64)
    assert model.buffer.length == 16 and len(list(model.buffer.minibatches(1))) == 4
    model.learn(64)  # goes on


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
    model.train()
    assert model.guard.skipped == 1 and "first the returns" in model.guard.first
    assert torch.equal(before, torch.nn.utils.parameters_to_vector(model.policy.parameters()))


def test_a_gradient_that_is_not_finite_spoils_nothing():
    model = collected(DummyVecEnv([lambda: Counter(3)]), n_steps=12, normalize_advantage=False)
    before = torch.nn.utils.parameters_to_vector(model.policy.parameters())
    model.buffer.advantages.fill_(1.0)
    model.buffer.log_probs.fill_(-100.0)  # the loss of a ratio that overflows is clipped, its gradient is 0 times inf
    model.train()
    assert "gradient of" in model.guard.first
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


def test_state_storage_of_the_published_stm_stays_small():
    """64 environments x 128 steps: one state per sequence, not per step (stock layout: 2.7 GB)."""
    core = make_core("stm", 64, queries=8, item_size=96)
    buffer = SequenceBuffer(128, 64, 128, core, "cpu")
    assert sum(leaf.nbytes for leaf in buffer.state) < 64e6


@pytest.mark.parametrize(
    ("n_steps", "n_envs", "bptt", "batch", "expected"),
    [
        (128, 8, None, None, (128, 2)),
        (128, 8, 32, None, (32, 8)),
        (128, 7, None, None, (128, 7)),
        (128, 1, None, None, (32, 1)),
        (100, 1, None, None, (25, 1)),
        (50, 1, None, None, (25, 1)),
        (12, 1, None, None, (12, 1)),  # too short to be cut
        (128, 1, None, 128, (128, 1)),
        (128, 1, 128, None, (128, 1)),
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
        (dict(clip_range="lin_0"), "clip_range must be"),
        (dict(clip_range_vf="lin_0"), "clip_range_vf must be"),
        (dict(learning_rate="lin_fast"), "learning_rate must be.*lin_3e-4"),
        (dict(normalize_advantage=None), "normalize_advantage must be true or false"),
        (dict(max_grad_norm=None), "max_grad_norm must be"),
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


@pytest.mark.parametrize("algorithm", [MemoryPPO, A3C])
def test_without_an_environment_there_is_no_policy(algorithm):
    with pytest.raises(ValueError, match=f"{algorithm.__name__} needs an environment"):
        algorithm("MemoryPolicy", None)


def test_without_a_seed_the_environment_has_none():
    starts = [MemoryPPO("MemoryPolicy", "CartPole-v1").get_env().reset() for _ in range(2)]
    assert not np.array_equal(*starts)


def test_same_seed_same_parameters():
    def train():
        env = sb3_make_vec_env("CartPole-v1", n_envs=2, seed=5)
        model = MemoryPPO("MemoryPolicy", env, n_steps=32, n_epochs=2, seed=5).learn(192)
        return torch.nn.utils.parameters_to_vector(model.policy.parameters())

    assert torch.equal(train(), train())


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


def test_memory_and_observation_stay_together_when_a_step_is_interrupted(monkeypatch):
    model = MemoryPPO("MemoryPolicy", sb3_make_vec_env("CartPole-v1"), n_steps=8).learn(8)
    before = model._last_obs, model._state

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(model.env, "step_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.learn(8, reset_num_timesteps=False)
    assert model._last_obs is before[0] and model._state is before[1]


def test_numbers_may_be_those_of_numpy():
    numbers = dict.fromkeys(("learning_rate", "clip_range", "clip_range_vf", "ent_coef"), np.float32(0.01))
    MemoryPPO("MemoryPolicy", "CartPole-v1", n_steps=8, n_epochs=1, **numbers).learn(8)


def test_minibatches_keep_what_belongs_together():
    buffer = collected(DummyVecEnv([lambda: Counter(3)] * 2), n_steps=12, bptt_length=4).buffer
    number = torch.arange(6.0)  # of each column
    for stored in (buffer.values, buffer.log_probs, buffer.advantages, buffer.returns, buffer.actions):
        stored.copy_(number.expand(4, 6))
    buffer.obs.copy_(number.view(1, 6, 1).expand(4, 6, 1))
    for leaf in buffer.state:
        leaf.copy_(number.unsqueeze(1).expand_as(leaf))
    seen = []
    for chosen in buffer.minibatches(2):
        batch = buffer.sequences(chosen)
        columns = batch.returns[0]
        assert torch.equal(columns, chosen.float())
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
    model.buffer.end_rollout(last_values, starts)
    model.buffer.compute_advantages(0.9, 0.5)
    torch.testing.assert_close(found, model.buffer.advantages)


def test_schedules_go_on():
    env = DummyVecEnv([lambda: Counter(3)])
    schedules = {"clip_range": lambda left: 0.1 + left, "ent_coef": lambda left: left}
    logged = MemoryPPO("MemoryPolicy", env, n_steps=8, n_epochs=1, **schedules).learn(32).logger.name_to_value
    assert (logged["train/clip_range"], logged["train/ent_coef"]) == (0.1, 0.0)


def test_no_schedule_is_asked_beyond_the_end_of_the_training():
    asked = []
    schedule = lambda left: asked.append(left) or 0.1  # noqa: E731
    env = DummyVecEnv([lambda: Counter(3)])
    MemoryPPO("MemoryPolicy", env, schedule, n_steps=8, clip_range=schedule).learn(12)  # two rollouts: 16 steps
    assert min(asked) == 0.0


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


def test_what_stopped_an_update_is_logged_as_stock_recurrent_ppo_logs_it():
    """The first minibatch still finds the old policy; the second one that the policy has moved, and is not learned."""

    def logged(algorithm, policy, **options):
        env = DummyVecEnv([lambda n=n: Counter(n) for n in (3, 5)])
        model = algorithm(policy, env, n_steps=16, batch_size=16, target_kl=1e-9, clip_range_vf=0.3, seed=0, **options)
        return model.learn(32).logger.name_to_value

    ours = logged(MemoryPPO, "MemoryPolicy", learning_rate=0.01, ent_coef=0.1)
    stock = logged(RecurrentPPO, MemoryActorCriticPolicy, learning_rate=0.01, ent_coef=0.1)
    assert {name for name in stock if name.startswith("train/")} <= set(ours)
    assert ours["train/approx_kl"] > 1.5e-9 and ours["train/clip_range_vf"] == 0.3
    assert ours["train/n_updates"] == stock["train/n_updates"] == 1
    # Both see one minibatch at a KL of zero, and one after the same step of Adam.
    assert ours["train/approx_kl"] == pytest.approx(stock["train/approx_kl"], rel=1.0)


def test_an_update_that_stops_at_once_is_logged_too():
    model = collected(DummyVecEnv([lambda: Counter(3)] * 2), n_steps=12, batch_size=24, target_kl=0.01)
    with torch.no_grad():
        model.policy.action_net.bias[0] += 3
    model.train()
    logged = model.logger.name_to_value
    assert logged["train/approx_kl"] > 0.015 and np.isfinite(logged["train/loss"])


def test_no_further_epoch_begins_where_the_policy_has_moved_too_far():
    env = DummyVecEnv([lambda: Counter(3)] * 2)
    model = MemoryPPO("MemoryPolicy", env, n_steps=12, n_epochs=3, target_kl=0.01, seed=0).learn(1)
    with torch.no_grad():
        model.policy.action_net.bias[0] += 3
    before = model._n_updates
    model.train()
    assert model._n_updates == before + 1


def test_the_policy_is_in_training_mode_for_updates_alone():
    model = MemoryPPO("MemoryPolicy", DummyVecEnv([lambda: Counter(3)]), n_steps=8, n_epochs=1)
    modes = set()

    def note(name, method):
        return lambda *args, **kwargs: modes.add((name, model.policy.training)) or method(*args, **kwargs)

    for name in ("act", "evaluate_sequence"):
        setattr(model.policy, name, note(name, getattr(model.policy, name)))
    model.learn(16)
    assert modes == {("act", False), ("evaluate_sequence", True)}


@pytest.mark.parametrize("core", ["identity", "lstm", "rmc", "stm"])
def test_the_parts_of_a_minibatch_have_the_gradient_of_the_whole(core, monkeypatch):
    monkeypatch.setattr(parts, "PART", 4)
    gradients, names = {}, []
    for run, threads in (("whole", 1), ("halves", 2), ("thirds", 3), ("again", 3)):
        torch.set_num_threads(threads)
        env = make_vec_env("PongNoFrameskip-v4", 2, seed=1, image_size=42, n_threads=1)
        kwargs = dict(n_steps=8, bptt_length=4, batch_size=16, precision="fp32", policy_kwargs=dict(core=core))
        model = MemoryPPO("MemoryPolicy", env, seed=0, n_epochs=1, max_grad_norm=1e9, **kwargs)
        loss = model._loss
        model._loss = lambda *args, loss=loss: names.append(threading.current_thread().name) or loss(*args)
        model.learn(16)
        assert torch.get_num_threads() == threads
        gradients[run] = [parameter.grad for parameter in model.policy.parameters()]
        env.close()
    assert [name == "MainThread" for name in names] == [True] + 8 * [False]
    for run in ("halves", "thirds"):
        for whole, summed in zip(gradients["whole"], gradients[run], strict=True):
            torch.testing.assert_close(summed, whole, rtol=1e-3, atol=1e-5)
    assert all(map(torch.equal, gradients["thirds"], gradients["again"]))  # whichever thread was the first


def test_a_minibatch_has_as_many_parts_as_are_worth_a_thread():
    env = make_vec_env("PongNoFrameskip-v4", 1, seed=1, n_threads=1)
    of_images = MemoryPPO("MemoryPolicy", env, seed=0).policy
    env.close()
    torch.set_num_threads(2)
    assert [parts.n_parts(of_images, transitions) for transitions in (16, 255, 256, 4096)] == [1, 1, 2, 2]
    of_numbers = MemoryPPO("MemoryPolicy", "CartPole-v1", seed=0).policy
    assert parts.n_parts(of_numbers, 4096) is None


@pytest.mark.parametrize("shape", [(2**31, 7, 3, None), (2**31, 2**31, 2**31, 7), (2**61 - 1, 1, 5, None)])
def test_a_hint_about_huge_numbers_is_found_at_once(shape):
    with pytest.raises(ValueError, match="the nearest that does is"):
        minibatch_shape(*shape)
