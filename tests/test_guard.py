"""Updates that are not finite: skipped, counted, and in the end explained."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecEnvWrapper

from relmem.agents import A3C, IMPALA, Diverged, MemoryPPO
from relmem.agents.distributed.fleet import LocalFleet, weights_of
from relmem.agents.finite import has_finite_weights
from relmem.envs import make_vec_env

CARTPOLE = "relmem/MaskedCartPole-v0"
POLICY = {"core": "gru", "core_kwargs": {"hidden_size": 4}}


def ppo(**kwargs):
    env = make_vec_env(CARTPOLE, 2, seed=0)
    return MemoryPPO("MemoryPolicy", env, n_steps=16, n_epochs=2, seed=0, policy_kwargs=POLICY, **kwargs)


def spoil(model, times):
    """Let the returns of some updates be no numbers; the learning rates of all."""
    train, done, rates = model.train, [], []

    def spoilt():
        if len(done) in times:
            model.buffer.returns.fill_(float("nan"))
        done.append(None)
        train()
        rates.append(model.logger.name_to_value["train/learning_rate"])

    model.train = spoilt
    return rates


def test_single_updates_are_skipped_and_counted():
    model = ppo(max_skipped=50)
    spoil(model, {1})
    model.learn(32 * 4)
    assert model.guard.skipped == 4 and model.guard.halved == 0 and has_finite_weights(model.policy)
    assert model.logger.name_to_value["train/skipped_updates"] == 4
    assert model.num_timesteps == 128


def test_after_many_in_a_row_the_last_good_weights_go_on_at_half_the_rate_and_then_the_training_ends():
    model = ppo(max_skipped=3, learning_rate=1e-3)
    rates = spoil(model, {1, 3, 5})
    with pytest.raises(Diverged, match="first the returns"):
        model.learn(32 * 10)
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4]) and has_finite_weights(model.policy)


def test_none_is_skipped_where_that_is_off():
    model = ppo(max_skipped=None)
    spoil(model, {1})
    with pytest.raises(Diverged, match="first the returns"):
        model.learn(32 * 4)


@pytest.mark.parametrize("name", ["value_net.weight", "action_net.bias"])
def test_the_first_tensor_is_named(name):
    model = ppo(max_skipped=None)
    model.learn(32)
    with torch.no_grad():
        dict(model.policy.named_parameters())[name].fill_(float("inf"))
    with pytest.raises(Diverged, match=f"first the weight {name}"):
        model.train()


def test_weights_that_spoil_a_rollout_are_taken_back():
    model = ppo(learning_rate=1e-3)
    model.learn(64)
    model.guard.begin()
    model.guard.end()  # these are good
    with torch.no_grad():
        model.policy.action_net.weight.fill_(float("nan"))
    model.learn(64, reset_num_timesteps=False)
    assert model.num_timesteps == 128 and model.guard.halved == 1 and has_finite_weights(model.policy)


class Overflowing(VecEnvWrapper):
    """Gives rewards that are finite, and of which the loss is not."""

    def reset(self):
        self.steps = 0
        return self.venv.reset()

    def step_wait(self):
        obs, rewards, dones, infos = self.venv.step_wait()
        self.steps += 1
        return obs, np.full_like(rewards, 1e15 if self.steps % 50 < 5 else 1.0), dones, infos


def overflowing(n_envs, seed):
    return Overflowing(make_vec_env(CARTPOLE, n_envs, seed=seed))


def test_workers_of_a3c_skip_updates_too():
    kwargs = {"workers": 1, "envs_per_worker": 2, "t_max": 5, "seed": 0, "policy_kwargs": POLICY}
    model = A3C("MemoryPolicy", overflowing, vf_coef=1e12, **kwargs)
    model.learn(400)
    assert model.num_timesteps == 400 and model.guard.skipped > 0
    assert model._n_updates + model.guard.skipped == 40 and has_finite_weights(model.policy)
    with pytest.raises(Diverged, match=r"A3C worker 0: the loss or its gradient is not finite, first the"):
        A3C("MemoryPolicy", overflowing, vf_coef=1e12, max_skipped=None, **kwargs).learn(400)


def test_impala_skips_updates_too():
    def impala(**options):
        kwargs = {"workers": 2, "envs_per_worker": 2, "t_max": 5, "unrolls": 1, "seed": 0, "policy_kwargs": POLICY}
        model = IMPALA("MemoryPolicy", CARTPOLE, **kwargs, **options)
        loss_of, calls = model._loss, []

        def spoilt(unroll):
            calls.append(None)
            loss = loss_of(unroll)
            return loss._replace(loss=loss.loss * float("nan")) if len(calls) % 7 == 0 else loss

        model._loss = spoilt
        return model

    model = impala()
    model.learn(400)
    assert model.num_timesteps == 400 and model.guard.skipped == 5 and model._n_updates == 35
    assert has_finite_weights(model.policy)
    with pytest.raises(Diverged, match="the loss or its gradient is not finite, first the loss"):
        impala(max_skipped=None).learn(400)


@pytest.mark.parametrize("kind", [A3C, IMPALA])
def test_workers_of_a_learner_elsewhere_say_what_is_not_finite_and_go_on(kind):
    model = kind("MemoryPolicy", CARTPOLE, workers=1, envs_per_worker=2, t_max=5, seed=0, policy_kwargs=POLICY)
    job = model._job(0) if kind is A3C else model.job()
    good = [array.copy() for array in weights_of(model.policy)]
    with LocalFleet(job, 1, seed=0) as fleet:
        results = fleet.results()
        fleet.publish([np.full_like(array, np.nan) for array in good], 1.0)
        bad = next(results)
        assert "not finite" in bad.report.fault
        assert not model._update([bad], fleet.version) and model.guard.skipped == 1
        fleet.publish(good, 1.0)
        assert not next(results).report.fault
