"""An agent that carries its memory: what it remembers, when it forgets, and which observations it refuses."""

import numpy as np
import pytest
from counter_env import Counter
from gymnasium import spaces
from small_cores import SMALL
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from relmem.agents import Agent, MemoryPPO, registered_cores


def vector_env(n=3, env=Counter):
    return DummyVecEnv([lambda: env(100)] * n)


class Pictures(Counter):
    observation_space = spaces.Box(0, 255, (40, 50, 3), np.uint8)


class Parts(Counter):
    observation_space = spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(3))


def model(core="gru", env=Counter):
    kwargs = {"core": core, "core_kwargs": SMALL.get(core, {})}
    return MemoryPPO("MemoryPolicy", vector_env(env=env), n_steps=8, policy_kwargs=kwargs, seed=1)


@pytest.fixture(scope="module")
def gru():
    return model()


@pytest.mark.parametrize("core", registered_cores())
def test_it_acts_as_predict_does_with_state_and_starts(core):
    trained = model(core)
    agent, rng, state = Agent(trained), np.random.default_rng(0), None
    starts = np.ones(3, bool)
    for _ in range(6):
        obs = rng.normal(size=(3, 1)).astype(np.float32)
        expected, state = trained.predict(obs, state, starts, deterministic=True)
        np.testing.assert_array_equal(agent.act(obs), expected)
        for own, given in zip(agent.state, state, strict=True):
            np.testing.assert_array_equal(own, given)
        starts = rng.random(3) < 0.4
        agent.reset(starts)


def test_a_reset_is_exact_and_leaves_the_others_alone(gru):
    agent, fresh, kept = Agent(gru), Agent(gru), Agent(gru)
    obs = np.array([[1.0], [2.0], [3.0]], np.float32)
    for _ in range(5):
        agent.act(obs), kept.act(obs)
    agent.reset(np.array([False, True, False]))
    agent.act(obs), fresh.act(obs), kept.act(obs)
    packed, anew, before = (np.concatenate(each.state, axis=2)[0] for each in (agent, fresh, kept))
    np.testing.assert_array_equal(packed[1], anew[1])
    np.testing.assert_array_equal(packed[[0, 2]], before[[0, 2]])
    assert not np.allclose(packed[0], anew[0])


def test_single_observations_are_remembered_too(gru):
    agent, batched = Agent(gru), Agent(gru)
    for t in range(4):
        action = agent.act(np.array([float(t)], np.float32))
        assert action.shape == () and action == batched.act(np.array([[float(t)]], np.float32))[0]
        if t == 1:
            agent.reset(True), batched.reset(np.array([True]))
    np.testing.assert_array_equal(agent.state[0], batched.state[0])


def test_sampled_actions_vary(gru):
    agent = Agent(gru)
    obs = np.zeros((50, 1), np.float32)
    assert len(set(agent.act(obs).tolist())) == 1
    assert len(set(agent.act(obs, deterministic=False).tolist())) == 2


def test_stock_models_act_too():
    stock = PPO("MlpPolicy", vector_env(), n_steps=8, batch_size=8)
    assert Agent(stock).act(np.zeros((3, 1), np.float32)).shape == (3,)


@pytest.mark.parametrize("shape", [(), (2,), (3, 2), (0, 1), (1, 1, 1)])
def test_wrong_shapes_are_refused(gru, shape):
    with pytest.raises(ValueError, match=r"an observation must have the shape \(1,\), or \[N, ...\]"):
        Agent(gru).act(np.zeros(shape, np.float32))


def test_another_number_of_environments_needs_a_reset(gru):
    agent = Agent(gru)
    agent.act(np.zeros((2, 1), np.float32))
    for obs in (np.zeros((3, 1), np.float32), np.zeros(1, np.float32)):
        with pytest.raises(ValueError, match=r"remembers a batch of 2 environment\(s\), but was shown .*reset"):
            agent.act(obs)
    agent.reset()
    assert agent.act(np.zeros((3, 1), np.float32)).shape == (3,)


@pytest.mark.parametrize("mask", [np.zeros(2, bool), True, np.zeros(3), np.zeros((3, 1), bool), [0, 1, 0]])
def test_a_mask_is_true_or_false_for_each_environment(gru, mask):
    agent = Agent(gru)
    agent.act(np.zeros((3, 1), np.float32))
    with pytest.raises(ValueError, match="the mask must be true or false for each environment"):
        agent.reset(mask)


def test_pictures_may_have_their_channels_last():
    agent = Agent(model(env=Pictures))
    for shape in ((3, 40, 50), (40, 50, 3)):
        assert agent.act(np.zeros(shape, np.uint8)).shape == ()
    for shape in ((40, 50), (50, 40, 3), (3, 50, 40)):
        with pytest.raises(ValueError, match=r"must have the shape \(3, 40, 50\)"):
            agent.act(np.zeros(shape, np.uint8))


def test_parts_of_observations_are_checked_one_by_one():
    agent = Agent(model(env=Parts))
    good = {"a": np.zeros((4, 2), np.float32), "b": np.zeros(4, int)}
    assert agent.act(good).shape == (4,)
    agent.reset()
    for wrong, message in [
        (good | {"a": np.zeros((4, 3), np.float32)}, "'a' of an observation must have the shape"),
        (good | {"b": np.zeros(3, int)}, "all of as many environments"),
        ({"a": good["a"]}, "must be dictionaries of a, b, got one of a"),
        (good["a"], "must be dictionaries of a, b, got one of the type ndarray"),
    ]:
        with pytest.raises(ValueError, match=message):
            agent.act(wrong)
