"""IMPALA with workers in its own process: its update, its bookkeeping, what it saves."""

import numpy as np
import pytest
import torch
from observers import CARTPOLE, Observer, StopWhenSolved, parameters
from small_cores import SMALL
from stable_baselines3.common.logger import configure

from relmem.agents import A3C, IMPALA, load, registered_cores
from relmem.agents.distributed.fleet import LocalFleet, weights_of
from relmem.agents.impala.algorithm import joined
from relmem.agents.impala.rollout import RolloutJob
from relmem.agents.worker_envs import env_factory

TWO_WORKERS = {"workers": 2, "envs_per_worker": 2, "t_max": 5, "unrolls": 2, "seed": 0}


def policy_kwargs(core="lstm"):
    return {"core": core, "core_kwargs": SMALL.get(core, {})}


def make(core="lstm", env=CARTPOLE, **options):
    return IMPALA("MemoryPolicy", env, policy_kwargs=policy_kwargs(core), **(TWO_WORKERS | options))


def a_fleet(model, n_workers=1):
    job = RolloutJob(model.policy, "fp32", env_factory(CARTPOLE), 2, model.t_max, model.gamma, None)
    return LocalFleet(job, n_workers, seed=0)


def test_it_learns_masked_cartpole():
    """Random play lasts 20 steps, and an agent without memory (the core ``identity``) levels off at about 50."""
    model = IMPALA(
        "MemoryPolicy",
        CARTPOLE,
        policy_kwargs={"core": "lstm", "core_kwargs": {"hidden_size": 64}, "net_arch": [64]},
        envs_per_worker=4,
        unrolls=1,
        learning_rate=3e-3,
        clip_reward=0.05,  # brings returns to the order of 1
        stats_window_size=30,
        seed=0,
    )
    callback = StopWhenSolved(threshold=90)
    model.learn(60_000, callback=callback)
    assert callback.solved


@pytest.mark.parametrize("core", registered_cores())
def test_what_a_worker_did_is_evaluated_as_it_was_played(core):
    """With the same weights the learner sees the worker's probabilities: observations, starts of episodes, actions and
    the memory that an unroll began with belong together."""
    model = make(core, t_max=12)
    with a_fleet(model) as fleet:
        fleet.publish(weights_of(model.policy), 1.0)
        unrolls = (result.content for result in fleet.results())
        # One in which an episode goes on, and others begin.
        unroll = next(unroll for unroll in unrolls if unroll.starts[1:-1].any() and not unroll.starts[0].all())
    state = type(model.policy.initial_state(1))(*map(torch.as_tensor, unroll.state))
    actions = torch.as_tensor(unroll.actions)
    _, log_prob, _, _ = model.policy.evaluate_sequence(
        torch.as_tensor(unroll.obs)[:-1], actions, state, torch.as_tensor(unroll.starts)[:-1]
    )
    torch.testing.assert_close(log_prob, torch.as_tensor(unroll.log_probs), rtol=0, atol=2e-5)


def test_unrolls_are_joined_beside_each_other():
    model = make()
    with a_fleet(model, n_workers=2) as fleet:
        fleet.publish(weights_of(model.policy), 1.0)
        results = fleet.results()
        first, second = next(results).content, next(results).content
    both = joined([first, second])
    assert both.obs.shape[:2] == (6, 4) and both.rewards.shape == (5, 4) and both.state[0].shape[0] == 4
    assert np.array_equal(both.obs[:, 2:], second.obs) and np.array_equal(both.state[0][:2], first.state[0])
    assert not np.array_equal(first.obs, second.obs)  # each worker has its own seed


def test_steps_updates_log_and_callbacks(tmp_path):
    model, observer = make(), Observer()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(415, callback=observer, log_interval=1)
    assert model.num_timesteps == 420 and model._n_updates == 21  # whole updates of 2 x 2 x 5 steps
    assert observer.steps == list(range(2, 421, 2))
    assert observer.episodes > 5
    header = (tmp_path / "progress.csv").read_text().splitlines()[0]
    for tag in (
        "time/weights_age",
        "time/learner_idle",
        "time/workers",
        "train/policy_gradient_loss",
        "train/grad_norm",
    ):
        assert tag in header


def test_it_is_reproducible_and_goes_on_from_a_file(tmp_path):
    one, other = (make().learn(200) for _ in range(2))
    assert torch.equal(parameters(one), parameters(other))
    one.learn(100, reset_num_timesteps=False)
    one.save(tmp_path / "agent")
    again = load(tmp_path / "agent", env=CARTPOLE)
    assert isinstance(again, IMPALA) and torch.equal(parameters(again), parameters(one))
    again.learn(100, reset_num_timesteps=False)
    assert again.num_timesteps == 400 and not torch.equal(parameters(again), parameters(one))
    with pytest.raises(ValueError, match="cannot load what another"):
        A3C.load(tmp_path / "agent")


def test_a_callback_that_stops_leaves_only_what_was_learned():
    class Stop(Observer):
        def _on_step(self):
            return super()._on_step() and self.num_timesteps < 47

    model = make()
    model.learn(400, callback=Stop())
    assert model.num_timesteps == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unrolls": 0}, "unrolls"),
        ({"launcher": "rey"}, "launcher"),
        ({"rho_max": -1.0}, "rho_max"),
        ({"env": lambda n: None}, "an environment factory must be a function"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
