"""One update of A3C: the loss and its gradients, and the optimizer and step budget that workers share."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from counter_env import ACTION_SPACES, AnyAction, Counter
from gymnasium import spaces
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import DummyVecEnv

from relmem.agents import MemoryActorCriticPolicy
from relmem.agents.a3c import worker
from relmem.agents.a3c.algorithm import OPTIMIZERS
from relmem.agents.a3c.learner import SegmentLearner, Settings
from relmem.agents.a3c.shared import SharedOptimizer, StepBudget

SPAWN = torch.multiprocessing.get_context("spawn")


# -------------------------------------------------------------------- the loss


def settings(**changes):
    defaults = {
        "t_max": 6,
        "gamma": 0.9,
        "gae_lambda": 0.8,
        "vf_coef": 0.5,
        "ent_coef": FloatSchedule(0.01),
        "lr_schedule": FloatSchedule(1e-3),
        "max_grad_norm": None,
        "clip_reward": None,
    }
    return Settings(**{**defaults, **changes})


def make_policy(env, **kwargs):
    torch.manual_seed(0)
    return MemoryActorCriticPolicy(env.observation_space, env.action_space, lambda _: 1e-3, **kwargs)


def loss_of_one_environment(policy, state, actions, first, length, truncate, reward):
    """The released agent's loss, step by step, for ``Counter(length, truncate)`` from its step number ``first`` on."""
    gamma, gae_lambda, ent_coef = 0.9, 0.8, 0.01

    def observation(t):
        return torch.tensor([[float(t)]])

    values, log_probs, entropies, bootstraps = [], [], [], []
    for t, action in enumerate(actions, start=first):
        start = torch.tensor([[t % length == 0]])
        value, log_prob, entropy, state = policy.evaluate_sequence(
            observation(t % length)[None], action.view(1, 1), state, start
        )
        values.append(value.squeeze())
        log_probs.append(log_prob.squeeze())
        entropies.append(entropy.squeeze())
        if (t + 1) % length == 0:
            goes_on = policy.value(observation(length), state, torch.tensor([False])).squeeze().detach()
            bootstraps.append(goes_on if truncate else torch.tensor(0.0))
        else:
            bootstraps.append(None)
    after = first + len(actions)
    last = policy.value(observation(after % length), state, torch.tensor([after % length == 0])).squeeze().detach()

    loss, next_return, next_value, advantage = 0.0, last, last, torch.tensor(0.0)
    for t in reversed(range(len(actions))):
        if bootstraps[t] is not None:
            next_return = next_value = bootstraps[t]
            advantage = torch.tensor(0.0)
        next_return = reward + gamma * next_return
        advantage = reward + gamma * next_value - values[t].detach() + gamma * gae_lambda * advantage
        loss = loss - log_probs[t] * advantage - ent_coef * entropies[t]
        loss = loss + 0.5 * 0.5 * (next_return - values[t]) ** 2
        next_value = values[t].detach()
    return loss


@pytest.mark.parametrize("clip_reward", [None, 0.25])
def test_gradients_are_those_of_the_released_loss(clip_reward):
    episodes = [(4, False), (5, True)]  # (length, whether a time limit ends it)
    env = DummyVecEnv([lambda e=e: Counter(*e) for e in episodes])
    policy = make_policy(env, core="lstm", core_kwargs={"hidden_size": 8})
    learner = SegmentLearner(policy, env, settings(clip_reward=clip_reward))
    learner.play()
    learner.gradients(ent_coef=0.01)
    carried = learner._place[2]
    learner.play()  # the second segment, so that memory is carried and old gradients could be left over
    gradients, _ = learner.gradients(ent_coef=0.01)

    losses = [
        loss_of_one_environment(
            policy,
            type(carried)(*(leaf[i : i + 1] for leaf in carried)),
            learner.buffer.actions[:, i],
            first=6,
            length=length,
            truncate=truncate,
            reward=clip_reward or 1.0,
        )
        for i, (length, truncate) in enumerate(episodes)
    ]
    expected = torch.autograd.grad(sum(losses) / 2, learner.parameters)
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference)


def test_rewards_are_reported_unclipped():
    env = DummyVecEnv([lambda: Counter(4, False)])
    learner = SegmentLearner(make_policy(env), env, settings(clip_reward=0.25))
    rewards, dones, _ = zip(*learner.play(), strict=True)
    assert np.concatenate(rewards).tolist() == [1.0] * 6
    assert np.concatenate(dones).nonzero()[0].tolist() == [3]


def test_gradients_are_clipped_by_norm():
    env = DummyVecEnv([lambda: Counter(4, False)])
    learner = SegmentLearner(make_policy(env), env, settings(max_grad_norm=0.1))
    learner.play()
    gradients, statistics = learner.gradients(ent_coef=0.0)
    norm = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
    assert statistics["train/grad_norm"] > 0.1
    assert norm.item() == pytest.approx(0.1, rel=1e-4)


def test_a_gradient_that_is_not_finite_stops_the_worker():
    env = DummyVecEnv([lambda: Counter(4, False)])
    learner = SegmentLearner(make_policy(env), env, settings())
    learner.play()
    learner.policy.value_net.weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(FloatingPointError, match="first the gradient of"):
        learner.gradients(ent_coef=0.0)


def test_a_loss_that_is_not_finite_stops_the_worker():
    env = DummyVecEnv([lambda: Counter(4, False)])
    learner = SegmentLearner(make_policy(env), env, settings())
    with torch.no_grad():
        learner.policy.value_net.bias.fill_(math.inf)
    learner.play()
    with pytest.raises(FloatingPointError, match="first the returns"):
        learner.gradients(ent_coef=0.0)


class Mixed(gym.Env):
    """Observations in a dictionary, actions in a box."""

    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (1, 36, 36), np.uint8), "vector": spaces.Box(-1, 1, (3,))}
    )
    action_space = spaces.Box(-0.1, 0.1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 0.0, False, self.np_random.random() < 0.3, {}


def test_dictionaries_images_and_continuous_actions():
    env = DummyVecEnv([Mixed, Mixed])
    learner = SegmentLearner(make_policy(env), env, settings())
    learner.play()
    gradients, _ = learner.gradients(ent_coef=0.01)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert learner.buffer.actions.abs().max() > 0.1  # clipped for the environments only


@pytest.mark.parametrize("space", ACTION_SPACES, ids=str)
def test_every_action_space(space):
    env = DummyVecEnv([lambda: AnyAction(space), lambda: AnyAction(space)])
    learner = SegmentLearner(make_policy(env), env, settings())
    learner.play()
    gradients, _ = learner.gradients(ent_coef=0.01)
    assert all(gradient.isfinite().all() for gradient in gradients)


# -------------------------------------------------------------------- what workers share


@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [
        *(tuple(optimizer.values()) for optimizer in OPTIMIZERS.values()),
        (torch.optim.Adam, {"weight_decay": 0.1}),
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.Adamax, {}),
    ],
)
def test_one_process_steps_like_the_plain_optimizer_with_fresh_gradients(optimizer_class, options):
    torch.manual_seed(0)
    plain = optimizer_class([torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(5))], **options)
    shared = SharedOptimizer(plain, SPAWN)
    for learning_rate in (0.1, 0.05, 0.01):
        gradients = [torch.randn_like(parameter) for parameter in plain.param_groups[0]["params"]]
        for parameter, gradient in zip(plain.param_groups[0]["params"], gradients, strict=True):
            parameter.grad = gradient.clone()
        plain.param_groups[0]["lr"] = learning_rate
        plain.step()
        shared.step(gradients, learning_rate)
    copied = optimizer_class([torch.nn.Parameter(torch.zeros(3, 4)), torch.nn.Parameter(torch.zeros(5))], **options)
    shared.copy_to(copied)
    for parameter, reference in zip(copied.param_groups[0]["params"], plain.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(parameter, reference)
    for i, state in plain.state_dict()["state"].items():
        torch.testing.assert_close(copied.state_dict()["state"][i], state)
    if "step" in plain.state_dict()["state"][0]:
        assert SharedOptimizer(copied, SPAWN).steps == 3  # where a saved optimizer goes on


def test_frozen_parameters_stay_as_they_are():
    free, frozen = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2), requires_grad=False)
    plain = torch.optim.AdamW([frozen, free], weight_decay=0.5)
    shared = SharedOptimizer(plain, SPAWN)
    shared.step([torch.ones(3)], learning_rate=0.1)
    shared.copy_to(plain)
    assert frozen.tolist() == [1, 1] and (free < 1).all()


def step_many_times(optimizer, times):
    torch.set_num_threads(1)
    for _ in range(times):
        optimizer.step([torch.ones(10)], learning_rate=0.001)


def test_processes_share_parameters_and_lose_no_step():
    start = torch.zeros(10)
    plain = torch.optim.Adam([torch.nn.Parameter(start.clone())])
    shared = SharedOptimizer(plain, SPAWN)
    processes = [SPAWN.Process(target=step_many_times, args=(shared, 500)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    shared.copy_to(plain)
    assert shared.steps == 1000
    assert plain.state_dict()["state"][0]["step"] == 1000
    # Against a constant gradient each of Adam's steps is as long as the learning rate; few are lost.
    torch.testing.assert_close(plain.param_groups[0]["params"][0].detach(), start - 1.0, atol=0.1, rtol=0)


def test_the_budget_is_claimed_once():
    budget = StepBudget(taken=100, total=130, context=SPAWN)
    assert [budget.claim(20), budget.claim(20), budget.claim(20)] == [100, 120, None]
    budget = StepBudget(taken=0, total=130, context=SPAWN)
    budget.close()
    assert budget.claim(20) is None


def test_each_worker_has_seeds_of_its_own_and_schedules_go_on(monkeypatch):
    seeds, left = [], {"rate": [], "entropy": []}

    def note(name):
        return lambda progress_remaining: left[name].append(progress_remaining) or 0.01

    def factory(n_envs, seed):
        seeds.append(seed)
        return DummyVecEnv([lambda: Counter(4)] * n_envs)

    env = factory(2, 0)
    policy = MemoryActorCriticPolicy(env.observation_space, env.action_space, lambda _: 1e-3)
    settings = Settings(5, 0.99, 0.9, 0.5, note("entropy"), note("rate"), None, None)
    monkeypatch.setattr(worker, "set_random_seed", seeds.append)
    context = torch.multiprocessing.get_context("spawn")
    seeds.clear()
    for rank in (0, 2):
        job = worker.Job(policy, factory, 2, 7, settings, {})
        shared, budget = SharedOptimizer(policy.optimizer, context, 3), StepBudget(0, 40, context, 3)
        list(worker._train(rank, rank, job, shared, budget))
    assert seeds == [8, 7, 10, 11]
    assert left["rate"] == left["entropy"] == [1.0, 0.75, 0.5, 0.25] * 2
