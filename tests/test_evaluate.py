"""Evaluation: which episodes are played, to which end, and what is refused."""

import numpy as np
import pytest
from counter_env import Counter
from stable_baselines3.common.vec_env import DummyVecEnv

from relmem.agents import MemoryPPO, evaluate


def counters(*lengths):
    return DummyVecEnv([lambda n=n: Counter(n) for n in lengths])


@pytest.fixture(scope="module")
def model():
    return MemoryPPO("MemoryPolicy", counters(3), n_steps=8)


def test_the_first_episode_of_each_environment_is_played_to_its_end(model):
    calls = []
    result = evaluate(model, counters(4, 30, 2), progress=lambda *done: calls.append(done))
    assert result == ([2.0, 4.0, 30.0], [2, 4, 30], True)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_each_environment_plays_its_share_of_the_episodes(model):
    result = evaluate(model, counters(4, 10), episodes=5)
    assert sorted(result.lengths) == [4, 4, 4, 10, 10] and result.complete
    assert result.returns == result.lengths
    assert len(evaluate(model, counters(4, 10), episodes=1).returns) == 1


def test_what_a_time_limit_cuts_is_marked(model):
    result = evaluate(model, counters(2, 10**9), seconds=0.3)
    assert result == ([2.0], [2], False)


def test_actions_are_the_most_probable_ones(model):
    first, second = (evaluate(model, counters(5)) for _ in range(2))
    assert first == second
    with pytest.raises(ValueError, match="episodes must be an integer of at least 1"):
        evaluate(model, counters(5), episodes=0)


def test_an_environment_that_is_not_finite_is_named(model):
    class Broken(Counter):
        def step(self, action):
            obs, *rest = super().step(action)
            return obs * (np.nan if self.t == 2 else 1), *rest

    with pytest.raises(FloatingPointError, match=r"environment 1 gave an observation .*nan"):
        evaluate(model, DummyVecEnv([lambda: Counter(5), lambda: Broken(5)]))
