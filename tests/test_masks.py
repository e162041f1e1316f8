"""Action masks: what is allowed is played, learned from and stored, with memory."""

from itertools import islice

import numpy as np
import pytest
import torch
from counter_env import AnyAction, Counter
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as masked_evaluate_policy
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from relmem.agents import A3C, IMPALA, MemoryPPO, evaluate
from relmem.agents.masks import choices, mask_reader, masked_distribution, require_masks
from relmem.envs import make_vec_env
from relmem.experiment.play import play

ID = "relmem/RepeatFirstAllowed-v0"
KINDS = ["discrete", "multi_discrete", "multi_binary"]


def make(kind="discrete", n_envs=4, seed=0, **options):
    kwargs = {"actions": kind, "length": 4, **options}
    if kind != "discrete":
        kwargs["n_choices"] = 2
    return make_vec_env(ID, n_envs, seed=seed, env_kwargs=kwargs)


# ---------------------------------------------------------------- the environment and its optimum


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimum_of_the_environment_needs_memory_and_masks(kind):
    env = make(kind, n_envs=1, length=3, n_choices=3)
    n = env.get_attr("n_cues")[0]

    def play(remembers, masked, episodes):
        rng, returns = np.random.default_rng(0), []
        obs = env.reset()
        for _ in range(episodes):
            cue, total, done = int(obs[0, :-1].argmax()), 0.0, False
            while not done:
                masks = env.env_method("action_masks")[0].reshape(env.get_attr("n_parts")[0], -1)
                if masked and not masks.all():
                    parts = masks.argmax(axis=1)
                else:
                    number = cue if remembers and obs[0, -1] else rng.integers(n)
                    parts = np.array(np.unravel_index(number, masks.shape[1:] * len(masks)))
                obs, reward, dones, _ = env.step([parts[0] if kind == "discrete" else parts])
                total, done = total + reward[0], dones[0]
            returns.append(total)
        return np.mean(returns)

    assert play(True, True, 50) == 1
    assert play(False, True, 400) == pytest.approx(1 / n, abs=0.08)
    assert play(True, False, 400) == pytest.approx(n ** (1 - 3), abs=0.08)


# ---------------------------------------------------------------- the distribution


@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3)])
def test_what_all_choices_are_allowed_to_is_the_distribution_without_masks(space):
    env = DummyVecEnv([lambda: AnyAction(space)])
    policy = MemoryPPO("MemoryPolicy", env, n_steps=8).policy
    latent = torch.randn(64, policy.core.output_size)
    plain = policy._distribution(latent)
    actions = plain.sample()
    masked = policy._distribution(latent, torch.ones(64, sum(choices(space)), dtype=torch.bool))
    torch.testing.assert_close(masked.log_prob(actions), plain.log_prob(actions))
    torch.testing.assert_close(masked.entropy(), plain.entropy())
    assert torch.equal(masked.mode().float(), plain.mode().float())


def test_what_is_forbidden_has_no_probability_no_entropy_and_no_gradient():
    logits = torch.randn(5, 4, requires_grad=True)
    masks = torch.tensor([[True, False, True, False]]).repeat(5, 1)
    distribution = masked_distribution(spaces.Discrete(4), logits, masks)
    assert set(distribution.sample().tolist()) <= {0, 2} and set(distribution.mode().tolist()) <= {0, 2}
    two = torch.distributions.Categorical(logits=logits[:, [0, 2]])
    torch.testing.assert_close(distribution.entropy(), two.entropy())
    torch.testing.assert_close(distribution.log_prob(torch.full((5,), 2)), two.log_prob(torch.ones(5)))
    distribution.entropy().sum().backward()
    assert logits.grad[:, [1, 3]].abs().max() < 1e-6 and logits.grad.isfinite().all()


# ---------------------------------------------------------------- learning and playing


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_is_what_was_played(kind):
    model = MemoryPPO("MemoryPolicy", make(kind), n_steps=16, bptt_length=8, batch_size=16, n_epochs=2, seed=0)
    allowed = []
    model.lr_schedule = lambda _: 0.0

    def callback(frame, _):
        masks = frame["action_masks"].reshape(4, model.env.get_attr("n_parts")[0], -1)
        actions = torch.as_tensor(frame["clipped_actions"]).reshape(4, -1, 1).long()
        allowed.append(masks.gather(2, actions).all().item())
        return True

    model.learn(64, callback=callback)
    assert allowed == [True] * 16
    buffer = model.buffer
    with torch.no_grad():
        values, log_probs, entropy, _ = model.policy.evaluate_sequence(
            buffer.obs, buffer.actions, buffer.state, buffer.starts, buffer.action_masks
        )
    torch.testing.assert_close(values, buffer.values)
    torch.testing.assert_close(log_probs, buffer.log_probs)
    forced = ~buffer.obs[..., -1].bool()
    assert entropy[forced].abs().max() < 1e-6 and log_probs[forced].abs().max() < 1e-6  # one choice alone
    assert abs(model.logger.name_to_value["train/approx_kl"]) < 1e-6
    for columns in buffer.minibatches(2):
        assert torch.equal(buffer.sequences(columns).action_masks, buffer.action_masks[:, columns])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ppo_learns_what_needs_memory_and_masks(kind):
    kwargs = {"core": "gru", "core_kwargs": {"hidden_size": 32}}
    env = make(kind, n_envs=32)
    model = MemoryPPO("MemoryPolicy", env, n_steps=16, learning_rate=5e-3, seed=0, policy_kwargs=kwargs, gamma=0.9)
    model.learn(8192)
    assert np.mean(evaluate(model, make(kind, n_envs=16, seed=9), 64).returns) > 0.9  # 0.25 without memory
    obs = make(kind, n_envs=16, seed=9).reset()
    free, _ = model.predict(obs, deterministic=True)
    forbidden = np.zeros((16, env.get_attr("n_parts")[0], env.get_attr("n_choices")[0]), bool)
    forbidden[..., 1] = True
    forced, _ = model.predict(obs, deterministic=True, action_masks=forbidden)
    assert (forced == 1).all() and not (free == 1).all()


@pytest.mark.parametrize("algorithm", [A3C, IMPALA])
def test_workers_play_and_learn_from_what_is_allowed(algorithm):
    model = algorithm(
        "MemoryPolicy",
        ID,
        env_kwargs={"env_kwargs": {"length": 4}},
        workers=1,
        envs_per_worker=4,
        t_max=8,
        seed=0,
        learning_rate=0.0,
        policy_kwargs={"core": "gru"},
    )
    lengths = []

    def callback(frame, _):
        lengths.extend(info["episode"]["l"] for info in frame["infos"] if "episode" in info)
        return True

    model.learn(256, callback=callback)
    assert len(lengths) > 10 and set(lengths) == {4}
    # The learner of IMPALA knows the masks too: at the same weights, its probabilities are those of the worker.
    assert abs(model.logger.name_to_value.get("train/approx_kl", 0.0)) < 1e-5
    assert evaluate(model, make(), 8).lengths == [4] * 8


def test_an_agent_that_is_watched_plays_what_is_allowed():
    model = MemoryPPO("MemoryPolicy", make(), n_steps=8)
    assert [moment.done for moment in islice(play(model, make(n_envs=1)), 8)] == [False, False, False, True] * 2


def test_masks_reach_an_agent_through_processes_and_wrappers():
    def one():
        return ActionMasker(Counter(3), lambda env: np.array([env.t % 2 == 0, env.t % 2 == 1]))

    env = VecNormalize(SubprocVecEnv([one, one]))
    try:
        env.reset()
        read = mask_reader(env)
        assert read().tolist() == [[True, False]] * 2
        model = MemoryPPO("MemoryPolicy", env, n_steps=6)
        taken = []
        model.learn(12, callback=lambda frame, _: not taken.append(frame["clipped_actions"].tolist()))
        assert taken == [[0, 0], [1, 1], [0, 0]] * 2
    finally:
        env.close()


def test_sb3_contribs_own_masked_evaluation_takes_our_agents():
    model = MemoryPPO("MemoryPolicy", make(), n_steps=8)
    _, lengths = masked_evaluate_policy(model, make(), 8, return_episode_rewards=True)
    assert lengths == [4] * 8
    stock = MaskablePPO("MlpPolicy", make(n_envs=1), n_steps=8, batch_size=8)
    assert evaluate(stock, make(), 4).lengths != [4] * 4  # only ours are told what is allowed


def test_an_agent_without_masks_is_as_before():
    env = DummyVecEnv([lambda: Counter(3)])
    assert mask_reader(env)() is None
    model = MemoryPPO("MemoryPolicy", env, n_steps=8).learn(8)
    assert model.buffer.action_masks is None


# ---------------------------------------------------------------- bad masks


@pytest.mark.parametrize(
    ("masks", "space", "sentence"),
    [
        ([[True, False]], spaces.Discrete(3), r"\[1, 3\], got the shape \[1, 2\]"),
        ([True] * 6, spaces.MultiDiscrete([3, 2]), r"each of 5 choices .* got the shape \[6\]"),
        ([True] * 3, spaces.MultiBinary(3), r"each of 6 choices"),
        ([[False] * 3], spaces.Discrete(3), "action_masks of environment 0 allows nothing$"),
        ([1, 1, 1, 0, 0], spaces.MultiDiscrete([3, 2]), "environment 0 allows nothing for part 1 of its action"),
        ([1, 1, 0, 0, 1, 1], spaces.MultiBinary(3), "environment 0 allows nothing for part 1 of its action"),
        ([0.5, 1, 1], spaces.Discrete(3), "must be true or false, got "),
        ([True, True], spaces.Box(-1, 1, (2,)), "are for actions of Discrete, MultiDiscrete and MultiBinary, not for"),
    ],
)
def test_a_mask_that_is_none_is_refused(masks, space, sentence):
    with pytest.raises(ValueError, match=sentence):
        require_masks(masks, space, 1)


class Broken(Counter):
    masks = (True, True, True)

    def action_masks(self):
        return np.array(self.masks if self.t else (True, True))


@pytest.mark.parametrize("masks", [(True, True, True), (False, False)])
def test_an_environment_with_a_wrong_mask_is_named_where_it_is_played(masks):
    env = DummyVecEnv([lambda: Counter(3), lambda: Broken(3)])
    assert mask_reader(env)() is None  # not all have some

    def broken():
        made = Broken(3)
        made.masks = masks
        return made

    env = DummyVecEnv([broken, broken])
    model = MemoryPPO("MemoryPolicy", env, n_steps=8)
    sentence = "each of 2 choices" if len(masks) == 3 else "environment 0 allows nothing"
    with pytest.raises(ValueError, match=sentence):
        model.learn(16)
    with pytest.raises(ValueError, match=sentence):
        evaluate(model, env)
    with pytest.raises(ValueError, match=sentence):
        model.predict(env.reset(), action_masks=[masks] * 2)


def test_masks_of_continuous_actions_are_refused():
    class Continuous(AnyAction):
        def action_masks(self):
            return np.ones(2, bool)

    env = DummyVecEnv([lambda: Continuous(spaces.Box(-1, 1, (2,)))])
    with pytest.raises(ValueError, match="action_masks are for actions of Discrete"):
        MemoryPPO("MemoryPolicy", env, n_steps=8).learn(8)
