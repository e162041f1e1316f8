"""The policy: one set of weights in relmem's own trainers and in stock RecurrentPPO."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from counter_env import ACTION_SPACES, AnyAction, BatchNormFeatures
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from relmem.agents import A3C, MemoryActorCriticPolicy, MemoryPPO, precision, registered_cores
from relmem.agents.features import FEATURES, features_class, standardize
from relmem.agents.saved import write_agent

OBS, ACTIONS = spaces.Box(-1, 1, (5,)), spaces.Discrete(3)


def make_policy(core="lstm", obs=OBS, actions=ACTIONS, **kwargs):
    torch.manual_seed(0)
    return MemoryActorCriticPolicy(obs, actions, lambda _: 1e-3, core=core, **kwargs)


@pytest.mark.parametrize("core", registered_cores())
def test_halves_carry_the_whole_state(core):
    policy = make_policy(core)
    state = policy.core.unpack(torch.randn(3, policy.core.state_size))
    for leaf, back in zip(state, policy.from_halves(policy.to_halves(state)), strict=True):
        assert torch.equal(leaf, back)


@pytest.mark.parametrize("core", registered_cores())
def test_stock_interface_and_ours_compute_the_same(core):
    """A minibatch laid out as stock RecurrentPPO does (sequence first, flat) gives what our sequences give."""
    policy = make_policy(core)
    T, B = 6, 4
    obs, actions = torch.randn(T, B, 5), torch.randint(3, (T, B))
    starts = torch.zeros(T, B, dtype=torch.bool)
    starts[0, 1] = starts[3, 2] = True
    state = policy.initial_state(B)
    values, log_prob, entropy, end = policy.evaluate_sequence(obs, actions, state, starts)

    halves = policy.to_halves(state)
    flat = lambda x: x.transpose(0, 1).flatten(0, 1)  # noqa: E731
    stock = policy.evaluate_actions(flat(obs), flat(actions), RNNStates(halves, halves), flat(starts).float())
    for ours, theirs in zip((values, log_prob, entropy), stock, strict=True):
        torch.testing.assert_close(flat(ours), theirs.squeeze(-1))

    carried = RNNStates(halves, halves)
    for t in range(T):
        step_value = policy.predict_values(obs[t], carried.pi, starts[t].float())
        _, forward_value, _, carried = policy(obs[t], carried, starts[t].float())
        torch.testing.assert_close(forward_value.squeeze(-1), values[t])
        torch.testing.assert_close(step_value, forward_value)
    for leaf, other in zip(end, policy.from_halves(carried.pi), strict=True):
        torch.testing.assert_close(leaf, other)


@pytest.mark.parametrize("core", registered_cores())
def test_both_losses_reach_the_core(core):
    policy = make_policy(core)
    if not list(policy.core.parameters()):
        pytest.skip("a core without parameters")
    obs, actions = torch.randn(4, 2, 5), torch.zeros(4, 2, dtype=torch.long)
    for pick in (0, 1):  # the critic's loss alone, the actor's loss alone
        policy.zero_grad()
        out = policy.evaluate_sequence(obs, actions, policy.initial_state(2), torch.zeros(4, 2, dtype=torch.bool))
        out[pick].sum().backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.core.parameters())


def test_predict_starts_from_the_initial_state_and_carries():
    policy = make_policy("lstm")
    obs = np.random.default_rng(0).uniform(-1, 1, (2, 5)).astype(np.float32)
    _, first = policy.predict(obs)
    _, again = policy.predict(obs, state=first, episode_start=np.array([True, True]))
    _, carried = policy.predict(obs, state=first, episode_start=np.array([False, True]))
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0][:, 0], carried[0][:, 0])
    np.testing.assert_array_equal(first[0][:, 1], carried[0][:, 1])


@pytest.mark.parametrize("core", ["stm", "rmc"])
def test_predict_starts_from_an_initial_state_that_is_not_zero(core):
    policy, obs = make_policy(core), np.ones((2, 5), np.float32)
    _, first = policy.predict(obs)
    _, begun = policy.predict(obs, first, np.ones(2, bool))
    np.testing.assert_array_equal(first, begun)


def test_predict_refuses_a_state_of_another_size():
    policy = make_policy("lstm")
    _, state = policy.predict(np.zeros((2, 5), np.float32))
    with pytest.raises(ValueError, match="for 3 environments"):
        policy.predict(np.zeros((3, 5), np.float32), state=state)


def test_predict_refuses_episode_starts_of_another_number():
    policy = make_policy("lstm")
    _, state = policy.predict(np.zeros((2, 5), np.float32))
    policy.predict(np.zeros((2, 5), np.float32), state, np.array([[False], [True]]))
    for wrong in (1, 3, 4):
        with pytest.raises(ValueError, match="one entry for each of 2 environments"):
            policy.predict(np.zeros((2, 5), np.float32), state, np.zeros(wrong, dtype=bool))
    _, state = policy.predict(np.zeros(5, np.float32))
    policy.predict(np.zeros(5, np.float32), state, False)  # the `done` of a single environment


@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_the_number_of_features_may_be_one_of_numpy(core):
    obs = spaces.Dict(a=OBS, b=spaces.MultiDiscrete([2, 3]))
    assert make_policy(core, obs).core.input_size == 10


def test_auto_is_bf16_for_our_convolutions_alone(monkeypatch):
    monkeypatch.setattr(precision, "has_native_bf16", lambda device: True)
    images = spaces.Box(0, 255, (1, 42, 42), np.uint8)
    for policy, auto in (
        (make_policy(), None),
        (make_policy(obs=images, features="small"), torch.bfloat16),
        (make_policy(obs=spaces.Dict(a=images)), None),
    ):
        for name, dtype in (("auto", auto), ("bf16", torch.bfloat16), ("fp32", None)):
            policy.set_precision(name)
            assert policy.features_dtype == dtype


def test_save_and_load_policy(tmp_path):
    policy = make_policy("gru", core_kwargs={"hidden_size": 7}, net_arch=[6])
    policy.save(tmp_path / "policy.zip")
    loaded = MemoryActorCriticPolicy.load(tmp_path / "policy.zip")
    obs = np.random.default_rng(0).uniform(-1, 1, (4, 5)).astype(np.float32)
    np.testing.assert_array_equal(policy.predict(obs)[1][0], loaded.predict(obs)[1][0])
    with pytest.raises(ValueError, match="not a saved policy"):
        write_agent(tmp_path / "policy.zip", {}, {})
        MemoryActorCriticPolicy.load(tmp_path / "policy.zip")
    ActorCriticPolicy.save(policy, tmp_path / "policy.zip")
    with pytest.raises(ValueError, match=r"trusted=True \(--trusted\) if you know"):
        MemoryActorCriticPolicy.load(tmp_path / "policy.zip")
    assert MemoryActorCriticPolicy.load(tmp_path / "policy.zip", trusted=True).core_name == "gru"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"core": "lstmm"}, "did you mean 'lstm'"),
        ({"core_kwargs": {"hiden_size": 3}}, "did you mean 'hidden_size'"),
        ({"core_kwargs": {"hidden_size": -3}}, "hidden_size must be an integer of at least 1"),
        ({"core": "no_such_module:thing"}, "module 'no_such_module'.*installed.*register the core 'thing'"),
        ({"net_arch": [0]}, "net_arch must be"),
        ({"features": "natur"}, "did you mean 'nature'"),
        ({"features": "nature"}, "image observations"),
        ({"features": "dict"}, "features 'dict' do not fit the observations"),
    ],
)
def test_bad_arguments_name_the_nearest_choice(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_policy(**kwargs)


def test_small_images_in_a_dictionary_are_named():
    def features_of(side):
        image = spaces.Box(0, 255, (3, side, side), np.uint8)
        return make_policy(obs=spaces.Dict(image=image, direction=spaces.Discrete(4))).features_dim

    assert features_of(36) > 4
    with pytest.raises(ValueError, match=r"images 'image' of shape \(3, 35, 35\) are too small for features 'dict'"):
        features_of(35)


@pytest.mark.parametrize(("features", "size"), [("nature", 512), ("a3c", 1024), ("small", 288)])
@pytest.mark.parametrize("shape", [(1, 84, 84), (1, 210, 160)])
def test_image_features(features, size, shape):
    policy = make_policy(obs=spaces.Box(0, 255, shape, np.uint8), features=features)
    assert policy.features_dim == size or (features, shape) == ("nature", (1, 210, 160))
    frames = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    policy.features_dtype = torch.bfloat16
    _, values, log_prob, state = policy.act(frames, policy.initial_state(2), torch.ones(2, dtype=torch.bool))
    assert values.dtype == log_prob.dtype == state.hidden.dtype == torch.float32


def test_images_are_standardised_one_by_one():
    images = torch.rand(3, 1, 8, 8) * torch.tensor([1.0, 0.2, 0.0]).view(3, 1, 1, 1) + 0.3
    standardised = standardize(images)
    torch.testing.assert_close(standardised.mean(dim=(1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        standardised.std(dim=(1, 2, 3), correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize(
    ("space", "name", "message"),
    [
        (spaces.Box(0, 255, (84, 84), np.uint8), None, "looks like images, which have three dimensions"),
        (spaces.Box(0, 255, (4, 84, 84, 3), np.uint8), None, "looks like images, which have three dimensions"),
        (spaces.Box(0, 1, (84, 84, 3)), "small", "need images with channels first"),
        (spaces.Box(0, 1, (84, 84, 3)), None, "need images with channels first.*mlp"),
        (spaces.Box(0, 254, (84, 84, 3), np.uint8), None, "need images with channels first.*mlp"),
        (spaces.Box(0, 254, (84, 84), np.uint8), None, "looks like images, which have three dimensions"),
        (spaces.Dict(a=spaces.Box(0, 1, (3, 84, 84))), None, "'a'.* looks like images"),
    ],
)
def test_images_that_are_none_of_ours_are_refused(space, name, message):
    with pytest.raises(ValueError, match=message):
        features_class(name, space)(space)


def test_native_atari_frames_are_cropped_to_the_field_of_play():
    features = FEATURES["a3c"](spaces.Box(0, 255, (1, 210, 160), np.uint8))
    images = torch.rand(1, 1, 210, 160)
    field = torch.nn.functional.avg_pool2d(images[:, :, 34:194], 2)
    torch.testing.assert_close(features.resize(images), field)


def test_arguments_of_sb3_reach_the_policy():
    policy = make_policy(
        actions=spaces.Box(-1, 1, (2,)),
        log_std_init=-1.0,
        activation_fn=torch.nn.ReLU,
        net_arch={"pi": [4], "vf": [6]},
        features_extractor_kwargs={"hidden_size": 7},
    )
    assert policy.log_std.tolist() == [-1, -1] and policy.features_dim == 7
    assert isinstance(policy.mlp_extractor.policy_net[1], torch.nn.ReLU)
    value = policy.value(torch.zeros(3, 5), policy.initial_state(3), torch.ones(3, dtype=torch.bool))
    assert value.shape == (3,)


def test_planes_of_a_board_are_images():
    space = spaces.Box(0, 1, (17, 8, 8))
    assert FEATURES["small"](space).features_dim == 288


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 1, (3, 84, 84)),
        spaces.Box(-10, 10, (1, 84, 84)),  # of VecNormalize
        spaces.Box(-np.inf, np.inf, (4, 64, 96), np.float64),
        spaces.Box(0, 254, (3, 84, 84), np.uint8),
        spaces.Box(0, 65535, (3, 84, 84), np.int32),
    ],
    ids=str,
)
def test_images_are_read_by_convolutions_whatever_their_numbers(space):
    policy = make_policy(obs=space)
    assert isinstance(policy.features_extractor, FEATURES["nature"])
    torch.manual_seed(0)
    images = torch.randint(0, 100, (2, *space.shape)).to(torch.as_tensor(np.empty(0, space.dtype)).dtype)
    _, values, _, _ = policy.act(images, policy.initial_state(2), torch.ones(2, dtype=torch.bool))
    assert values.isfinite().all()


def test_the_scale_of_images_does_not_matter():
    extractor = FEATURES["nature"](spaces.Box(0, 1, (1, 84, 84)))
    images = torch.rand(2, 1, 84, 84)
    torch.testing.assert_close(extractor(images), extractor(5000 * images - 300), rtol=1e-3, atol=1e-4)


def test_bytes_that_are_no_images_are_flattened():
    for shape in ((8, 8), (4, 128), (24, 80)):
        assert features_class(None, spaces.Box(0, 255, shape, np.uint8)) is FEATURES["mlp"]
    for shape in ((17, 8, 8), (50, 60), (5,)):  # a board, a table, a vector
        assert features_class(None, spaces.Box(0, 1, shape)) is FEATURES["mlp"]
    assert features_class("mlp", spaces.Box(0, 255, (84, 84), np.uint8)) is FEATURES["mlp"]


CONVOLUTIONS = ["nature", "atari", "a3c", "small"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("features", CONVOLUTIONS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_prepared_image_is_read_as_the_image(features, precision, channels):
    policy = make_policy(obs=spaces.Box(0, 255, (channels, 84, 84), np.uint8), features=features)
    policy.set_precision(precision)
    images = torch.randint(0, 256, (3, channels, 84, 84), dtype=torch.uint8)
    prepared = policy.prepare(images)
    assert prepared.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32) and prepared.is_contiguous()
    assert prepared[0].numel() == policy.features_extractor.pixels
    assert torch.equal(policy.prepare(prepared), prepared)
    state, starts = policy.initial_state(3), torch.ones(3, dtype=torch.bool)
    assert torch.equal(policy.value(prepared, state, starts), policy.value(images, state, starts))


def test_the_features_atari_are_a_plain_network():
    """The two layers of Mnih et al. (2013), on standardised images."""
    extractor = FEATURES["atari"](spaces.Box(0, 255, (1, 84, 84), np.uint8))
    (first, _, second, _, _, linear, _) = extractor.stack
    images = torch.rand(2, 1, 84, 84)
    x = (images - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), keepdim=True, correction=0)
    x = torch.conv2d(x, first.weight, first.bias, 4).relu()
    x = torch.conv2d(x, second.weight, second.bias, 2).relu()
    assert x.shape == (2, 32, 9, 9) and extractor.features_dim == 256
    expected = linear(x.permute(0, 2, 3, 1).flatten(1)).relu()
    torch.testing.assert_close(extractor(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("core", ["lstm", "identity"])
def test_with_a_bypass_heads_read_features_and_core(core):
    policy = make_policy(core, bypass=True)
    assert policy.mlp_extractor.latent_dim_pi == policy.core.output_size + policy.features_dim
    obs, starts = torch.randn(2, 5), torch.ones(2, dtype=torch.bool)
    halves = policy.to_halves(policy.initial_state(2))
    before = policy.value(obs, policy.initial_state(2), starts)
    torch.testing.assert_close(policy.predict_values(obs, halves, starts).squeeze(-1), before)
    with torch.no_grad():
        policy.value_net.weight[:, policy.core.output_size :] = 0.0  # the features
    after = policy.value(obs, policy.initial_state(2), starts)
    assert not torch.allclose(before, after)
    copy = MemoryActorCriticPolicy(**policy._get_constructor_parameters())
    copy.load_state_dict(policy.state_dict())
    assert torch.equal(copy.value(obs, copy.initial_state(2), starts), after)


@pytest.mark.parametrize("features", CONVOLUTIONS)
def test_images_in_bytes_are_images_in_zero_to_one(features):
    extractor = FEATURES[features](spaces.Box(0, 255, (2, 84, 84), np.uint8))
    frames = torch.randint(0, 256, (3, 2, 84, 84), dtype=torch.uint8)
    frames[1] = frames[1] // 64 + 100  # of little contrast
    frames[2] = 7  # blank
    torch.testing.assert_close(extractor(frames), extractor(frames / 255), rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(standardize(frames), standardize(frames / 255).bfloat16(), rtol=2**-7, atol=1e-5)


def test_dictionary_observations_and_box_actions():
    obs = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Discrete(4)})
    policy = make_policy(obs=obs, actions=spaces.Box(-2, 2, (2,)))
    action, _ = policy.predict({"a": np.zeros(3, np.float32), "b": np.int64(1)})
    assert action.shape == (2,)


@pytest.mark.parametrize("core", registered_cores())
def test_stock_recurrent_ppo(core, tmp_path):
    env = make_vec_env("CartPole-v1", n_envs=3, seed=0)
    model = RecurrentPPO(
        MemoryActorCriticPolicy, env, n_steps=16, batch_size=24, n_epochs=1, policy_kwargs={"core": core}, seed=1
    )
    before = [p.clone() for p in model.policy.parameters()]
    model.learn(3 * 16 * 2)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.policy.parameters(), strict=True))
    model.save(tmp_path / "model")
    loaded = RecurrentPPO.load(tmp_path / "model")
    obs, state, other, starts = env.reset(), None, None, np.ones(3, bool)
    for _ in range(10):
        action, state = model.predict(obs, state, starts, deterministic=True)
        loaded_action, other = loaded.predict(obs, other, starts, deterministic=True)
        np.testing.assert_array_equal(action, loaded_action)
        obs, _, starts, _ = env.step(action)
    evaluate_policy(loaded, gym.make("CartPole-v1"), n_eval_episodes=1, warn=False)


@pytest.mark.parametrize("space", ACTION_SPACES, ids=str)
def test_stock_recurrent_ppo_takes_every_action_space(space):
    model = RecurrentPPO(MemoryActorCriticPolicy, AnyAction(space), n_steps=16, batch_size=8, n_epochs=2)
    model.learn(32)
    assert space.contains(model.predict(np.zeros(1, np.float32))[0])


BAD_OBSERVATIONS = {
    "a dictionary in a dictionary": (spaces.Dict(a=OBS, b=spaces.Dict(c=OBS)), r"'b'.*FilterObservation\(env, \['a'\]"),
    "text": (spaces.Dict(image=OBS, mission=spaces.Text(9)), r"'mission'.*Text.*FilterObservation\(env, \['image'\]"),
    "nothing but text": (spaces.Text(9), "observation_space is Text.*FlattenObservation"),
    "a tuple": (spaces.Tuple([OBS, OBS]), "observation_space is Tuple.*FlattenObservation"),
    "a sequence": (spaces.Sequence(OBS), "observation_space is Sequence"),
    "a table of choices": (spaces.MultiDiscrete([[2, 3], [4, 5]]), "several dimensions"),
    "a bare number": (spaces.Dict(a=OBS, b=spaces.Box(-1, 1, ())), r"'b'.*no dimension.*\['a'\]"),
    "counted from one": (spaces.Dict(a=spaces.Discrete(3, start=1)), "start=1.*not count from 0.*take its start off"),
}
BAD_ACTIONS = {
    "a dictionary": (spaces.Dict(a=ACTIONS), "action_space is Dict"),
    "a tuple": (spaces.Tuple([ACTIONS, ACTIONS]), "action_space is Tuple.*MultiDiscrete"),
    "a table of choices": (spaces.MultiDiscrete([[2, 3], [4, 5]]), "action_space is MultiDiscrete.*several dimensions"),
    "a table of bits": (spaces.MultiBinary([2, 3]), "action_space is MultiBinary.*several dimensions"),
    "without bounds": (spaces.Box(-np.inf, np.inf, (2,)), "action_space is Box.*bounds"),
    "bounded on one side": (spaces.Box(0, np.inf, (2,)), "action_space is Box.*bounds"),
    "text": (spaces.Text(9), "action_space is Text"),
    "counted from one": (spaces.Discrete(3, start=1), "start=1.*not count from 0.*take its start off"),
}
BAD_SPACES = {
    **{f"observation: {name}": (space, ACTIONS, message) for name, (space, message) in BAD_OBSERVATIONS.items()},
    **{f"action: {name}": (OBS, space, message) for name, (space, message) in BAD_ACTIONS.items()},
}


class OfSpaces(gym.Env):
    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


class VecOfSpaces(DummyVecEnv):
    """A vector environment of any spaces, of which DummyVecEnv knows some only."""

    def __init__(self, observation_space, action_space):
        VecEnv.__init__(self, 1, observation_space, action_space)

    def close(self):
        pass

    def get_attr(self, name, indices=None):
        return [None]


@pytest.mark.parametrize("name", BAD_SPACES)
def test_spaces_that_no_policy_can_have_are_named_with_what_would_help(name):
    observations, actions, message = BAD_SPACES[name]
    with pytest.raises(ValueError, match=message):
        make_policy(obs=observations, actions=actions)
    with pytest.raises(ValueError, match=message):
        MemoryPPO("MemoryPolicy", OfSpaces(observations, actions))
    with pytest.raises(ValueError, match=message):
        A3C("MemoryPolicy", lambda n_envs, seed: VecOfSpaces(observations, actions), envs_per_worker=1)


def test_statistics_of_the_memory_leave_the_policy_as_it_was():
    policy = make_policy(features_extractor_class=BatchNormFeatures)
    state, starts = policy.initial_state(1), torch.ones(1, dtype=torch.bool)
    for training in (True, False):
        policy.set_training_mode(training)
        before = {name: value.clone() for name, value in policy.state_dict().items()}
        policy.memory_statistics(torch.ones(1, 5), state, starts)
        assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
        assert all(module.training == training for module in policy.modules())
