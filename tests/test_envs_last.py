"""The last action and the last reward as parts of observations."""

import gymnasium
import numpy as np
import pytest
import torch
from counter_env import ACTION_SPACES, Counter
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import DummyVecEnv

from relmem.agents import A3C, MemoryActorCriticPolicy, MemoryPPO, load
from relmem.agents.collector import collect, values_after_timeout
from relmem.agents.evaluate import evaluate
from relmem.envs import LastActionReward, make_vec_env

LAST = {"last_action": True, "last_reward": True}


class Echo(gymnasium.Env):
    """Observes its own step number, as a vector, an image or in a dictionary; pays ten times the step number."""

    def __init__(self, length=3, actions=spaces.Discrete(3), kind="vector", truncate=True):  # noqa: B008
        self.length, self.kind, self.truncate, self.t = length, kind, truncate, 0
        self.action_space = actions
        parts = {"vector": spaces.Box(0, 1000, (1,)), "image": spaces.Box(0, 255, (1, 84, 84), np.uint8)}
        self.observation_space = parts[kind] if kind in parts else spaces.Dict(vector=parts["vector"])

    def _observation(self):
        if self.kind == "image":
            return np.full((1, 84, 84), self.t, np.uint8)
        vector = np.array([self.t], np.float32)
        return vector if self.kind == "vector" else {"vector": vector}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._observation(), {}

    def step(self, action):
        self.t += 1
        over = self.t == self.length
        return self._observation(), 10.0 * self.t, over and not self.truncate, over and self.truncate, {}


def wrapped(*lengths, last_action=True, last_reward=True, **options):
    makers = [lambda length=length: Echo(length, **options) for length in lengths]
    return LastActionReward(DummyVecEnv(makers), last_action, last_reward)


def code(space, action):
    """One action as a vector, number by number."""
    if isinstance(space, spaces.Discrete):
        return [float(action == n) for n in range(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [float(a == n) for a, choices in zip(action, space.nvec, strict=True) for n in range(choices)]
    return [float(number) for number in np.ravel(action)]


@pytest.mark.parametrize("kind", ["vector", "image", "parts"])
@pytest.mark.parametrize("actions", ACTION_SPACES, ids=str)
def test_observations_show_what_was_done_and_got_and_begin_with_zeros(actions, kind):
    env = wrapped(3, 4, actions=actions, kind=kind)
    key = {"parts": "vector"}.get(kind, "observation")
    obs, t = env.reset(), np.zeros(2, int)
    assert not obs["last_action"].any()
    assert not obs["last_reward"].any()
    actions.seed(0)
    for _ in range(9):
        taken = np.stack([actions.sample() for _ in range(2)])
        obs, rewards, dones, infos = env.step(taken)
        for i in range(2):
            t[i] += 1
            seen = infos[i]["terminal_observation"] if dones[i] else {name: part[i] for name, part in obs.items()}
            assert env.observation_space.contains(seen)
            assert np.ravel(seen[key])[0] == t[i]
            np.testing.assert_allclose(seen["last_action"], code(actions, taken[i]))
            assert seen["last_reward"] == 10 * t[i] == rewards[i]
            if dones[i]:
                t[i] = 0
                assert not any(obs[name][i].any() for name in obs)
    assert t.tolist() == [9 % 3, 9 % 4]


def test_each_of_them_may_come_alone():
    assert set(wrapped(3, last_reward=False).reset()) == {"observation", "last_action"}
    assert set(wrapped(3, last_action=False).reset()) == {"observation", "last_reward"}
    assert set(make_vec_env("CartPole-v1", 2, **LAST).reset()) == {"observation", "last_action", "last_reward"}
    assert isinstance(make_vec_env("CartPole-v1", 2).observation_space, spaces.Box)


def test_the_arrays_of_a_step_are_not_changed_by_the_next():
    env = wrapped(5)
    env.reset()
    actions = np.array([1])
    env.step_async(actions)
    actions[:] = 2
    first = env.step_wait()[0]
    kept = {name: part.copy() for name, part in first.items()}
    env.step(np.array([0]))
    assert first["last_action"].tolist() == [[0, 1, 0]]
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


def test_actions_that_do_not_count_from_zero():
    env = wrapped(5, actions=spaces.Discrete(3, start=4))
    env.reset()
    assert env.step(np.array([5]))[0]["last_action"].tolist() == [[0, 1, 0]]


def test_a_part_of_that_name_is_not_overwritten():
    with pytest.raises(ValueError, match="observations have a part 'last_action' already"):
        LastActionReward(wrapped(3, last_reward=False), last_reward=False)
    with pytest.raises(ValueError, match="last_action must be true or false"):
        LastActionReward(wrapped(3, last_reward=False), last_action=1)


def test_atari_shows_them_beside_its_images():
    env = make_vec_env("PongNoFrameskip-v4", 2, seed=0, max_frames=12, **LAST)
    obs = env.reset()
    assert obs["observation"].dtype == np.uint8
    for t in range(1, 4):
        obs, _, dones, infos = env.step(np.array([2, 3]))
        assert dones.all() == (t == 3)
    final = infos[1]["terminal_observation"]
    assert final["observation"].shape == (1, 84, 84)
    assert final["last_action"].tolist() == [0, 0, 0, 1, 0, 0]
    assert not obs["last_action"].any()
    assert env.get_attr("frames_per_step") == [4, 4]
    env.close()


# ------------------------------------------------------------------------------------------------ what policies see


@pytest.mark.parametrize("kind", ["vector", "image", "parts"])
def test_features_are_those_of_the_observation_with_the_last_inputs_beside_them(kind):
    plain = Echo(kind=kind).observation_space
    env = wrapped(3, 4, kind=kind)
    policy = MemoryActorCriticPolicy(env.observation_space, env.action_space, lambda _: 1e-3)
    alone = MemoryActorCriticPolicy(plain, env.action_space, lambda _: 1e-3)
    assert policy.features_dim == alone.features_dim + 3 + 1
    policy.features_extractor.of.load_state_dict(alone.features_extractor.state_dict())
    env.reset()
    obs = env.step(np.array([2, 1]))[0]
    tensors = {name: torch.as_tensor(part) for name, part in obs.items()}
    rest = {"vector": tensors["vector"]} if kind == "parts" else tensors["observation"]
    got, expected = policy._features(tensors), alone._features(rest)
    assert torch.equal(got[:, :-4], expected)
    assert got[:, -4:].tolist() == [[0, 0, 1, 10], [0, 1, 0, 10]]


def test_images_keep_their_extractor_and_its_precision():
    space = wrapped(3, kind="image").observation_space
    policy = MemoryActorCriticPolicy(space, spaces.Discrete(3), lambda _: 1e-3, features="small")
    assert type(policy.features_extractor.of).__name__ == "SmallFeatures"
    policy.set_precision("bf16")
    assert policy.features_dtype == torch.bfloat16
    with pytest.raises(ValueError, match="features 'dict' do not fit"):
        MemoryActorCriticPolicy(space, spaces.Discrete(3), lambda _: 1e-3, features="dict")


def test_the_value_at_a_time_limit_is_of_the_last_observation_with_its_own_action_and_reward():
    env = wrapped(2)
    model = MemoryPPO("MemoryPolicy", env, n_steps=4, policy_kwargs={"core": "gru"})
    policy = model.policy
    state, obs = policy.initial_state(1), env.reset()
    step = None
    for step in collect(policy, env, model.buffer, obs, np.ones(1, bool), state, 0.9, None):
        if step.dones[0]:
            break
    got = values_after_timeout(policy, step.next_state, step.dones, step.infos)
    last = {
        "observation": torch.tensor([[2.0]]),
        "last_action": torch.eye(3)[step.actions],
        "last_reward": torch.tensor([[20.0]]),
    }
    expected = policy.value(last, step.next_state, torch.zeros(1, dtype=torch.bool))
    torch.testing.assert_close(got, expected.detach())


class Repeat(gymnasium.Env):
    """Pays for doing what was not done last, of which observations tell nothing; the first action is free."""

    observation_space, action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.last, self.t = None, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        paid = float(self.last is not None and action != self.last)
        self.last, self.t = action, self.t + 1
        return np.zeros(1, np.float32), paid, self.t == 8, False, {}


@pytest.mark.slow
def test_without_a_memory_the_last_action_is_what_teaches_to_alternate():
    def score(**last):
        env = DummyVecEnv([Repeat] * 8)
        env = LastActionReward(env, **last) if last else env
        options = {"n_steps": 64, "learning_rate": 3e-3, "gamma": 0.5, "seed": 0, "policy_kwargs": {"core": "identity"}}
        model = MemoryPPO("MemoryPolicy", env, **options).learn(8000)
        return np.mean(evaluate(model, env, 8).returns)

    assert score(last_action=True, last_reward=False) == 7
    assert score() < 3


def _a3c_env(n_envs, seed):
    return LastActionReward(DummyVecEnv([lambda: Counter(5)] * n_envs))


def _train_ppo():
    return MemoryPPO("MemoryPolicy", wrapped(3, 4), n_steps=8, policy_kwargs={"core": "gru"}).learn(32)


def _train_stock():
    kwargs = {"core": "gru"}
    return RecurrentPPO(MemoryActorCriticPolicy, wrapped(3, 4), n_steps=8, batch_size=16, policy_kwargs=kwargs).learn(
        32
    )


def _train_a3c():
    return A3C("MemoryPolicy", _a3c_env, workers=1, envs_per_worker=2, t_max=4, policy_kwargs={"core": "gru"}).learn(16)


@pytest.mark.parametrize("train", [_train_ppo, _train_stock, pytest.param(_train_a3c, marks=pytest.mark.slow)])
def test_algorithms_train_play_and_predict_with_them(train, tmp_path):
    model = train()
    env = _a3c_env(2, 0) if isinstance(model, A3C) else wrapped(3, 4)
    assert len(evaluate(model, env, 2).returns) == 2
    model.save(tmp_path / "model.zip")
    again = RecurrentPPO.load(tmp_path / "model.zip") if type(model) is RecurrentPPO else load(tmp_path / "model.zip")
    obs = env.reset()
    np.testing.assert_array_equal(*(m.predict(obs, deterministic=True)[0] for m in (model, again)))
