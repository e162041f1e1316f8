"""The rollout loop of PPO and A3C: what it stores, what it refuses from environments, what counts as a step."""

import numpy as np
import pytest
import torch
from counter_env import BatchNormFeatures, Counter
from gymnasium import spaces
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from relmem.agents import A3C, Diverged, MemoryPPO
from relmem.agents.a3c.learner import SegmentLearner, Settings


def test_a_worker_of_a3c_collects_what_ppo_collects():
    def env():
        return DummyVecEnv([lambda n=n: Counter(n, truncate=n == 5) for n in (3, 5)])

    ppo = MemoryPPO("MemoryPolicy", env(), n_steps=12, n_epochs=1, learning_rate=0.0, clip_reward=0.5, seed=0)
    torch.manual_seed(1)
    ppo.learn(1)
    nothing = FloatSchedule(0.0)
    worker = SegmentLearner(ppo.policy, env(), Settings(12, 0.99, 0.95, 0.5, nothing, nothing, None, 0.5))
    torch.manual_seed(1)
    worker.play()
    for name in ("obs", "starts", "actions", "values", "log_probs", "rewards", "advantages"):
        torch.testing.assert_close(getattr(worker.buffer, name), getattr(ppo.buffer, name))


class Faulty(Counter):
    """Environment 1 gives something strange at one of its steps."""

    def __init__(self, what, value, at, length=6, truncate=False):
        super().__init__(length, truncate)
        self.what, self.value, self.at = what, value, at

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return (self.spoilt(obs) if self.what == "observation" and self.at == 0 else obs), info

    def step(self, action):
        obs, reward, *rest = super().step(action)
        if self.t == self.at:
            obs, reward = (self.spoilt(obs), reward) if self.what == "observation" else (obs, self.value)
        return obs, reward, *rest

    def spoilt(self, obs):
        return np.full_like(obs, self.value)


class FaultyPair(Faulty):
    """The same in one of several numbers of a part of a dictionary."""

    observation_space = spaces.Dict(fine=Counter.observation_space, pair=spaces.Box(-np.inf, np.inf, (2,), np.float64))

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return {"fine": np.zeros(1, np.float32), "pair": np.append(obs, 0.0)}, info

    def step(self, action):
        obs, *rest = super().step(action)
        return {"fine": np.zeros(1, np.float32), "pair": np.append(obs.astype(float), 0.0)}, *rest

    def spoilt(self, obs):
        return np.full(1, self.value, dtype=float)


def pair_of(faulty, *arguments, **keywords):
    """A factory of two environments, the second of them faulty."""
    return lambda n_envs=2, seed=0: DummyVecEnv(
        [lambda: faulty("", 0, -1), lambda: faulty(*arguments, **keywords)]  # the first is never at its step -1
    )


FAULTS = {
    "infinite": (pair_of(Faulty, "observation", np.inf, 3), r"environment 1 gave an observation .*not finite.*inf"),
    "last of a rollout": (pair_of(Faulty, "observation", np.nan, 8, 20), "environment 1 gave an observation .*nan"),
    "first": (pair_of(Faulty, "observation", np.nan, 0), "environment 1 gave an observation .*nan"),
    "last of an episode": (
        pair_of(Faulty, "observation", np.nan, 6, truncate=True),
        "environment 1 gave a last observation .*nan",
    ),
    "part of a dictionary": (pair_of(FaultyPair, "observation", -np.inf, 2), "environment 1 gave .*'pair'.*-inf"),
    "beyond float32": (pair_of(FaultyPair, "observation", 1e39, 2), "environment 1 gave .*'pair'.*1.e.39"),
    "reward": (pair_of(Faulty, "reward", np.nan, 3), "environment 1 gave a reward .*nan"),
    "reward too large": (pair_of(Faulty, "reward", 1e38, 3), "environment 1 gave a reward .*too large.*1.e.38"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_an_environment_gives_is_checked_where_it_enters(name):
    make, message = FAULTS[name]
    model = MemoryPPO("MemoryPolicy", make(), n_steps=8, n_epochs=1)
    with pytest.raises(FloatingPointError, match=message) as raised:
        model.learn(64)
    assert not isinstance(raised.value, Diverged)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    assert model.num_timesteps == 16 * model._n_updates  # the broken rollout is not learned from


@pytest.mark.parametrize("name", ["infinite", "reward too large"])
def test_a_worker_names_its_environment(name):
    make, message = FAULTS[name]
    model = A3C("MemoryPolicy", make, workers=1, envs_per_worker=2, t_max=8)
    with pytest.raises(FloatingPointError, match=f"worker 0: {message}") as raised:
        model.learn(64)
    assert not isinstance(raised.value, Diverged)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    assert model.num_timesteps == 16 * model._n_updates


def test_an_environment_is_named_though_normalisation_spreads_what_it_gave():
    env = VecNormalize(FAULTS["infinite"][0]())
    with pytest.raises(FloatingPointError, match=r"environment 1 gave an observation .*inf"):
        MemoryPPO("MemoryPolicy", env, n_steps=8).learn(64)


def test_large_rewards_may_be_clipped_but_none_that_are_infinite():
    large = pair_of(Faulty, "reward", 1e38, 3)()
    assert MemoryPPO("MemoryPolicy", large, n_steps=8, clip_reward=1.0).learn(16).buffer.rewards.max() == 1
    infinite = pair_of(Faulty, "reward", np.inf, 3)()
    with pytest.raises(FloatingPointError, match="environment 1 gave a reward that is not finite: inf"):
        MemoryPPO("MemoryPolicy", infinite, n_steps=8, clip_reward=1.0).learn(16)


def test_observations_that_the_policy_cannot_compute_with_are_laid_to_the_environment():
    make = pair_of(Faulty, "observation", 3e38, 3)
    model = MemoryPPO("MemoryPolicy", make(), n_steps=8, policy_kwargs={"core": "identity"})
    with torch.no_grad():
        model.policy.features_extractor.stack = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 64))
        model.policy.features_extractor.stack[1].weight.fill_(100.0)
    with pytest.raises(FloatingPointError, match="environment 1 gave an observation that is too large") as raised:
        model.learn(64)
    assert not isinstance(raised.value, Diverged)


@pytest.mark.parametrize("algorithm", [MemoryPPO, A3C])
def test_a_training_that_blows_up_is_no_fault_of_the_environment(algorithm):
    options = {"n_steps": 8} if algorithm is MemoryPPO else {"workers": 1, "envs_per_worker": 2, "t_max": 8}
    make = pair_of(Faulty, "", 0, -1)
    sgd = {"optimizer_class": torch.optim.SGD}
    env = make() if algorithm is MemoryPPO else make
    model = algorithm("MemoryPolicy", env, learning_rate=1e38, policy_kwargs=sgd, **options)
    with pytest.raises(Diverged, match="learning_rate"):
        model.learn(640)


def test_steps_of_a_rollout_that_a_callback_ends_do_not_count():
    model = MemoryPPO("MemoryPolicy", DummyVecEnv([lambda: Counter(3)] * 8), n_steps=128)
    for _ in range(8):
        left = iter(range(63))
        model.learn(4096, callback=lambda *_, left=left: next(left, None) is not None, reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates) == (0, 0)
    model.learn(1024, reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates) == (1024, 4)


def test_running_statistics_count_updates_alone():
    for n_envs in (1, 2):
        env = DummyVecEnv([lambda: Counter(3)] * n_envs)
        batch_norm = {"features_extractor_class": BatchNormFeatures}
        model = MemoryPPO("MemoryPolicy", env, n_steps=8, batch_size=8, n_epochs=4, policy_kwargs=batch_norm)
        model.learn(8 * n_envs)
        assert model.policy.features_extractor.norm.num_batches_tracked == 4 * n_envs
        assert model.policy.training
