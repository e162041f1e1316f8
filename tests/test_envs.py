"""``make_vec_env``: what it makes of any id, what it refuses and in which words; the small memory environments."""

from __future__ import annotations

import functools
import itertools
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor

from relmem.envs import (
    AtariVecEnv,
    Flicker,
    FrameSkip,
    HideVelocities,
    MemoryChain,
    RepeatFirst,
    TMaze,
    make_atari_env,
    make_vec_env,
)
from relmem.envs.suites import POPGymObservation

BOX, ACTION = spaces.Box(0, 1, (3,)), spaces.Discrete(2)


class Picture(gymnasium.Env):
    """Noise of 40x60 pixels, with the channels last."""

    observation_space = spaces.Box(0, 255, (40, 60, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation(), {}

    def step(self, action):
        return self.observation(), 0.0, False, False, {}

    def observation(self):
        return self.np_random.integers(256, size=(40, 60, 3), dtype=np.uint8)


gymnasium.register(id="relmem-test/Picture-v0", entry_point=Picture)


def test_vector_observations():
    env = make_vec_env("CartPole-v1", 3, seed=4)
    assert env.num_envs == 3
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.get_attr("frames_per_step") == [1, 1, 1]
    assert env.render_mode == "rgb_array"
    first = env.reset()
    assert first.shape == (3, 4)
    for i in range(3):  # environment i has the seed 4 + i
        np.testing.assert_array_equal(first[i], gymnasium.make("CartPole-v1").reset(seed=4 + i)[0])


def test_image_observations_come_channel_first():
    env = make_vec_env("relmem-test/Picture-v0", 2, seed=0)
    assert env.observation_space.shape == (3, 40, 60)
    expected = gymnasium.make("relmem-test/Picture-v0").reset(seed=1)[0]
    np.testing.assert_array_equal(env.reset()[1], expected.transpose(2, 0, 1))


def test_frame_skip_of_any_environment_with_lengths_in_agent_steps():
    env = make_vec_env("CartPole-v1", 1, frame_skip=4, seed=0)
    assert env.env_is_wrapped(FrameSkip) == [True]
    frames = gymnasium.make("CartPole-v1")
    frames.reset(seed=0)
    n_frames = 1
    while not frames.step(1)[2]:
        n_frames += 1
    env.reset()
    done = False
    while not done:
        _, _, (done,), (info,) = env.step([1])
    assert info["episode"]["r"] == n_frames
    assert info["episode"]["l"] == np.ceil(n_frames / 4)


def test_defaults_of_atari():
    env = make_vec_env("ALE/Breakout-v5", 2)
    assert env.get_attr("frames_per_step") == [4, 4]
    assert make_vec_env("ALE/Breakout-v5", 2, image_size=(210, 160)).reset().shape == (2, 1, 210, 160)


@pytest.mark.parametrize(
    ("id", "nearest"),
    [
        ("PongNoFrameskp-v4", "PongNoFrameskip-v4"),
        ("ale/pong-v5", "ALE/Pong-v5"),
        ("CartPole", "CartPole-v1"),
        ("relmem/PongSkip8-v0", "relmem/PongSkip"),
        ("relmem.envs:relmem/MaskedCartpole-v0", "relmem/MaskedCartPole-v0"),
    ],
)
def test_unknown_ids_name_the_nearest_one(id, nearest):
    with pytest.raises(ValueError, match=f"^unknown environment '{id}': did you mean '{nearest}"):
        make_vec_env(id)


def test_an_unknown_id_that_resembles_none_names_none(monkeypatch):
    monkeypatch.setitem(gymnasium.registry, "WithoutVersion", gymnasium.spec("CartPole-v1"))
    with pytest.raises(ValueError, match=r"^unknown environment 'Zyzzyva-v7': an id of another package is"):
        make_vec_env("Zyzzyva-v7")
    with pytest.raises(ValueError, match="did you mean 'WithoutVersion'"):
        make_vec_env("WithoutVersio")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_envs": 0}, "n_envs must be an integer of at least 1, got 0"),
        ({"n_envs": 2.0}, "n_envs must be an integer of at least 1, got 2.0"),
        ({"frame_skip": -1}, r"frame_skip must be an integer of at least 0 .* got -1"),
        ({"frame_skip": 4.5}, r"frame_skip must be an integer of at least 0 .* got 4.5"),
        ({"frame_skip": True}, r"frame_skip must be an integer of at least 0 .* got True"),
        ({"seed": -1}, "seed must be an integer of at least 0 .* got -1"),
        ({"seed": 0.5}, "seed must be an integer of at least 0 .* got 0.5"),
        ({"max_frames": 0}, "max_frames must be an integer of at least 1 .* got 0"),
        ({"flicker": 1.5}, "flicker must be a number from 0 to 1 .* got 1.5"),
        ({"max_frames": 1e3}, "max_frames must be an integer of at least 1 .* got 1000.0"),
        ({"env_kwargs": ["render_mode"]}, "env_kwargs must be a mapping .* got"),
    ],
)
@pytest.mark.parametrize("id", ["PongNoFrameskip-v4", "CartPole-v1"])
def test_arguments_out_of_range(id, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_vec_env(id, **kwargs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_vec_env("CartPole-v1", image_size=84), "image_size is for Atari games"),
        (lambda: make_vec_env("CartPole-v1", crop=(34, 194)), "crop is for Atari games"),
        (lambda: make_vec_env("CartPole-v1", n_threads=2), "n_threads above 1 is for Atari games"),
        (lambda: make_vec_env("ALE/Pong-v5", image_size=0), "image_size must be an integer of at least 1 .* got 0"),
        (lambda: make_vec_env("ALE/Pong-v5", image_size=(84, 84, 1)), r"image_size must be .* got \(84, 84, 1\)"),
        (lambda: make_vec_env("ALE/Pong-v5", env_kwargs={"mode": 1}), "'ALE/Pong-v5' .* takes no env_kwargs"),
        (lambda: make_vec_env("relmem/PongSkip16-v0", frame_skip=4), "'relmem/PongSkip16-v0' has frame_skip 16, not 4"),
        (lambda: make_vec_env("no_such_package:Some-v0"), "needs a package that cannot be imported: No module named"),
        (lambda: make_vec_env("..:Some-v0"), r"'..:Some-v0' needs a package that cannot be imported"),
        (lambda: AtariVecEnv("pomg", 1), "unknown Atari game 'pomg': did you mean 'pong'"),
        (lambda: AtariVecEnv("pong", 1, n_threads=0), "n_threads must be an integer of at least 1 .* got 0"),
        (lambda: make_atari_env("pong", max_frames=-5), "max_frames must be an integer of at least 1, got -5"),
    ],
)
def test_other_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("id", [None, lambda: Picture(), Picture(), 3, gymnasium.spec("CartPole-v1")])
def test_an_environment_that_is_no_id(id):
    with pytest.raises(ValueError, match=r"Gymnasium id such as 'CartPole-v1', got .*gymnasium\.register.*DummyVecEnv"):
        make_vec_env(id)


class Spaces(gymnasium.Env):
    """Has the spaces that it is given."""

    def __init__(self, observation_space: spaces.Space = BOX, action_space: spaces.Space = ACTION) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}


gymnasium.register(id="relmem-test/Spaces-v0", entry_point=Spaces)


@pytest.mark.parametrize(
    ("env_kwargs", "named"),
    [
        # as MiniGrid has them
        ({"observation_space": spaces.Dict(image=BOX, mission=spaces.Text(9))}, r"observation\['mission'\] .* Text"),
        ({"observation_space": spaces.Dict(a=spaces.Dict(b=BOX))}, r"observation\['a'\] .* Dict"),
        ({"observation_space": spaces.Dict(a=spaces.Tuple([BOX]))}, r"observation\['a'\] .* Tuple"),
        ({"observation_space": spaces.Tuple([BOX, BOX])}, "observation .* Tuple"),
        ({"observation_space": spaces.Text(9)}, "observation .* Text"),
        ({"observation_space": spaces.Sequence(BOX)}, "observation .* Sequence"),
        ({"observation_space": spaces.Graph(BOX, None)}, "observation .* Graph"),
        ({"action_space": spaces.Tuple([ACTION, ACTION])}, "action .* Tuple"),
        ({"action_space": spaces.Dict(a=ACTION)}, "action .* Dict"),
    ],
)
def test_spaces_that_sb3_cannot_hold(env_kwargs, named):
    with pytest.raises(ValueError, match=f"^cannot make 'relmem-test/Spaces-v0': .*{named}.*gymnasium.wrappers"):
        make_vec_env("relmem-test/Spaces-v0", env_kwargs=env_kwargs)


@pytest.mark.parametrize("id", ["Blackjack-v1", "relmem-test/NoSpaces-v0"])
def test_environments_whose_spaces_cannot_be_held_as_they_are(id):
    gymnasium.registry.pop("relmem-test/NoSpaces-v0", None)
    gymnasium.register(id="relmem-test/NoSpaces-v0", entry_point=lambda: Spaces(None))
    with pytest.raises(ValueError, match=f"^cannot make '{id}': "):
        make_vec_env(id)


def test_a_dictionary_of_arrays_and_numbers_is_held():
    space = spaces.Dict(image=BOX, count=ACTION)
    env = make_vec_env("relmem-test/Spaces-v0", 2, env_kwargs={"observation_space": space})
    assert env.observation_space == space


def test_arguments_of_an_environment():
    env = make_vec_env("relmem/RepeatFirst-v0", 2, env_kwargs={"n_cues": 3, "length": 7})
    assert env.get_attr("unwrapped")[1].length == 7 and env.observation_space.shape == (4,)
    with pytest.raises(ValueError, match=r"cannot make 'relmem/RepeatFirst-v0'.* 'lenght': did you mean 'length'"):
        make_vec_env("relmem/RepeatFirst-v0", env_kwargs={"lenght": 7})
    with pytest.raises(ValueError, match=r"cannot make 'relmem/RepeatFirst-v0'.* length must be .* got 'long'"):
        make_vec_env("relmem/RepeatFirst-v0", env_kwargs={"length": "long"})


@pytest.mark.parametrize("error", [TypeError, KeyError, AssertionError, RuntimeError, ZeroDivisionError])
def test_whatever_a_constructor_raises_becomes_one_sentence(error):
    def fails(size=0):
        raise error("size\n  is wrong")

    gymnasium.registry.pop("relmem-test/Fails-v0", None)
    gymnasium.register(id="relmem-test/Fails-v0", entry_point=fails)
    message = rf"^cannot make 'relmem-test/Fails-v0': {error.__name__} in test_envs.py, line .*is wrong.*'size': 3"
    with pytest.raises(ValueError, match=message) as caught:
        make_vec_env("relmem-test/Fails-v0", env_kwargs={"size": 3})
    assert isinstance(caught.value.__cause__, error)


def test_a_package_may_fail_in_any_way(tmp_path, monkeypatch):
    (tmp_path / "fails_when_imported.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"'fails_when_imported:Some-v0' .* cannot be imported: .*line 1: div"):
        make_vec_env("fails_when_imported:Some-v0")


def test_missing_package_of_an_environment():
    def needs_more(**kwargs):
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed,\n  run `pip install box2d`")

    gymnasium.register(id="relmem-test/NeedsMore-v0", entry_point=needs_more)
    with pytest.raises(ValueError, match=r"^cannot make 'relmem-test/NeedsMore-v0': Box2D is not installed, run `pip"):
        make_vec_env("relmem-test/NeedsMore-v0")


@pytest.mark.parametrize(("frame_skip", "steps"), [(0, 10), (4, 3)])
@pytest.mark.parametrize("id", ["relmem-test/Picture-v0", "PongNoFrameskip-v4", "relmem/PongSkip{}-v0"])
def test_episodes_are_cut_off_after_max_frames(id, frame_skip, steps):
    env = make_vec_env(id.format(frame_skip), 1, frame_skip=frame_skip, max_frames=10)
    env.reset()
    (info,) = [env.step(np.array([0]))[3] for _ in range(steps)][-1]
    assert info["TimeLimit.truncated"] and info["episode"]["l"] == steps


def test_max_frames_goes_before_the_limit_of_an_id():
    env = make_vec_env("MountainCar-v0", 1, max_frames=300)  # 200 without
    env.reset()
    dones = [env.step(np.array([1]))[2][0] for _ in range(300)]
    assert dones == [False] * 299 + [True]


def test_a_single_pong_takes_max_frames_too():
    env = gymnasium.make("relmem/PongSkip16-v0", max_frames=40)
    env.reset()
    assert [env.step(0)[3] for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("id", ["CartPole-v1", "relmem-test/Picture-v0"])
def test_flicker_of_any_environment_whose_observations_are_arrays(id):
    plain, flickering = make_vec_env(id, 2, seed=0, env_kwargs={}), make_vec_env(id, 2, seed=0, flicker=0.5)
    assert flickering.observation_space == plain.observation_space
    obs, seen, n_blank = plain.reset(), flickering.reset(), 0
    for _ in range(60):
        for shown, expected in zip(seen, obs, strict=True):
            n_blank += not shown.any()
            assert not shown.any() or np.array_equal(shown, expected)
        obs, seen = (env.step(np.ones(2, dtype=np.int64))[0] for env in (plain, flickering))
    assert 35 < n_blank < 85


@pytest.mark.parametrize("seed", [0, 7])
def test_flicker_does_not_draw_the_random_numbers_of_the_environment(seed):
    flickering = Flicker(RepeatFirst(length=200), 0.5)
    seen = [flickering.reset(seed=seed)[0], *(flickering.step(0)[0] for _ in range(199))]
    blank = np.array([not obs.any() for obs in seen])
    theirs, _ = gymnasium.utils.seeding.np_random(seed)
    assert 0.3 < np.mean(blank == (theirs.random(200) < 0.5)) < 0.7


def test_flicker_widens_a_space_without_zero_and_refuses_what_is_no_array():
    space = spaces.Box(2, 3, (3,))
    env = make_vec_env("relmem-test/Spaces-v0", env_kwargs={"observation_space": space}, flicker=0.5)
    assert env.observation_space == spaces.Box(0, 3, (3,))
    with pytest.raises(ValueError, match=r"cannot make 'FrozenLake-v1': flicker blanks .* one array.* of Discrete"):
        make_vec_env("FrozenLake-v1", flicker=0.5)
    with pytest.raises(ValueError, match=r"probability must be a number from 0 to 1, got 1.5"):
        Flicker(RepeatFirst(), 1.5)


@pytest.mark.parametrize("make", [lambda: make_vec_env("ALE/Pong-v5"), lambda: make_atari_env("pong")])
@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_missing_rom(make, folder, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path / folder))
    with pytest.raises(ValueError, match="the ROM of the Atari game 'pong' cannot be read: "):
        make()


def test_masked_cartpole_hides_the_velocities_only():
    masked, full = gymnasium.make("relmem/MaskedCartPole-v0"), gymnasium.make("CartPole-v1")
    check_env(masked)
    obs, expected = masked.reset(seed=3)[0], full.reset(seed=3)[0]
    for t in range(12):
        np.testing.assert_array_equal(obs, expected[[0, 2]])
        obs, *outcome = masked.step(t % 2)
        expected, *expected_outcome = full.step(t % 2)
        assert outcome == expected_outcome


def test_repeat_first_rewards_memory_alone():
    env = gymnasium.make("relmem/RepeatFirst-v0")
    check_env(env)
    returns = {"first": [], "last": []}
    for seed in range(200):
        for choice in returns:
            obs, _ = env.reset(seed=seed)
            first, rewards, done = obs[:4].argmax(), [], False
            while not done:
                assert obs[4] == (len(rewards) == 15)
                obs, reward, done, truncated, _ = env.step(first if choice == "first" else obs[:4].argmax())
                assert not truncated
                rewards.append(reward)
            assert len(rewards) == 16
            assert not any(rewards[:-1])
            returns[choice].append(rewards[-1])
    assert np.mean(returns["first"]) == 1.0
    assert 0.1 < np.mean(returns["last"]) < 0.4  # chance


@pytest.mark.parametrize(("kwargs", "message"), [({"n_cues": 0}, "n_cues must be"), ({"length": 1}, "length must be")])
def test_repeat_first_refuses_what_needs_no_memory(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RepeatFirst(**kwargs)


def test_masked_cartpole_ends_after_500_steps():
    assert gymnasium.spec("relmem/MaskedCartPole-v0").max_episode_steps == 500


def play(env, policy, seed):
    """Return of an episode, and its observations; a policy gives an action for all observations so far."""
    seen, total, done = [env.reset(seed=seed)[0]], 0.0, False
    while not done:
        obs, reward, done, truncated, _ = env.step(policy(seen))
        assert not truncated
        seen.append(obs)
        total += reward
    return total, seen


def memoryless_policies(seen, n_actions):
    """Every map from the observations seen to actions."""
    known = sorted({obs.tobytes() for obs in seen})
    for actions in itertools.product(range(n_actions), repeat=len(known)):
        yield functools.partial(lambda chosen, seen: chosen[seen[-1].tobytes()], dict(zip(known, actions, strict=True)))


@pytest.mark.parametrize(("length", "active"), [(1, False), (20, False), (50, False), (1, True), (12, True)])
def test_t_maze_rewards_the_turn_that_the_cue_named(length, active):
    env = TMaze(length, active)
    check_env(env)

    def walk(seen):
        if len(seen) == 1 and active:
            return 1  # back to the cue
        return (3 if seen[active][0] > 0 else 2) if seen[-1][1] else 0

    cues = set()
    for seed in range(12):
        total, seen = play(env, walk, seed)
        assert total == 1.0 and len(seen) - 1 == length + 1 + 2 * active
        assert [obs[0] != 0 for obs in seen] == [t == active for t in range(len(seen))]
        cues.add(seen[active][0])
        assert play(env, lambda seen: 5 - walk(seen) if seen[-1][1] else walk(seen), seed)[0] == 0.0
    assert cues == {-1.0, 1.0}


def test_t_maze_punishes_what_is_behind_the_shortest_way():
    assert play(TMaze(10), lambda seen: 1, 0)[0] == pytest.approx(-1.1)  # 11 steps at the wall, each behind
    late = [1, *[0] * 9, 2]
    total, seen = play(TMaze(10), lambda seen: late[len(seen) - 1], 0)
    assert total == pytest.approx(-1.1) and not seen[-1][1]  # the turn comes a cell too early, and does nothing
    assert play(TMaze(10, active=True), lambda seen: 0, 0)[0] == pytest.approx(-1 / 12)  # waits at the junction


@pytest.mark.parametrize("active", [False, True])
def test_no_memoryless_policy_gets_more_than_half_of_the_t_maze(active):
    env = TMaze(3, active)
    seeds = [next(s for s in range(99) if (env.reset(seed=s), env._cue)[1] == cue) for cue in (-1, 1)]
    seen = [np.array(obs, np.float32) for obs in ((-1, 0), (1, 0), (0, 0), (0, 1))]
    best = max(np.mean([play(env, policy, s)[0] for s in seeds]) for policy in memoryless_policies(seen, 4))
    assert best == 0.5


@pytest.mark.parametrize(("length", "n_bits"), [(1, 1), (10, 1), (100, 1), (7, 5)])
def test_memory_chain_is_that_of_bsuite(length, n_bits):
    env = MemoryChain(length, n_bits)
    check_env(env)
    bits, asked = set(), set()
    for seed in range(40):
        total, seen = play(env, lambda seen: int(seen[0][2 + int(seen[-1][1])] > 0), seed)
        shown = np.array(seen)
        assert total == 1.0 and shown.shape == (length + 2, 2 + n_bits)
        np.testing.assert_allclose(shown[1:, 0], 1 - np.arange(length + 1) / length, atol=1e-6)
        np.testing.assert_array_equal(shown[0], shown[1] if length > 1 else shown[0])
        assert (np.abs(shown[:2, 2:]) == 1).all() and not shown[2:, 2:].any()
        assert not np.delete(shown[:, 1], [0, 1] if length == 1 else length).any()
        bits.add(shown[0, 2]), asked.add(int(shown[length, 1]))
        assert play(env, lambda seen: int(seen[0][2 + int(seen[-1][1])] < 0), seed)[0] == -1.0
    assert bits == {-1.0, 1.0} and asked == set(range(n_bits))


def test_no_memoryless_policy_gets_anything_of_the_memory_chain():
    env = MemoryChain(3)
    seeds = [next(s for s in range(99) if (env.reset(seed=s), env._bits[0])[1] == bit) for bit in (0, 1)]
    seen = [obs for s in seeds for obs in play(env, lambda seen: 0, s)[1]]
    assert all(np.mean([play(env, policy, s)[0] for s in seeds]) == 0 for policy in memoryless_policies(seen, 2))


@pytest.mark.parametrize(
    ("id", "velocities", "limit"), [("CartPoleNoVel-v1", [1, 3], 500), ("PendulumNoVel-v1", [2], 200)]
)
def test_environments_without_velocities_are_those_of_rl_zoo3(id, velocities, limit):
    hidden, full = gymnasium.make(id), gymnasium.make(id.replace("NoVel", ""))
    check_env(hidden)
    assert hidden.observation_space == full.observation_space and hidden.spec.max_episode_steps == limit
    obs, expected = hidden.reset(seed=3)[0], full.reset(seed=3)[0]
    for t in range(9):
        assert not obs[velocities].any() and expected[velocities].any()
        np.testing.assert_array_equal(np.delete(obs, velocities), np.delete(expected, velocities))
        action = t % 2 if id.startswith("CartPole") else np.array([0.5], np.float32)
        obs, *outcome = hidden.step(action)
        expected, *expected_outcome = full.step(action)
        assert outcome == expected_outcome


@pytest.mark.parametrize("drop", [False, True])
def test_velocities_that_are_not_finite_are_hidden_too(drop):
    env = HideVelocities(Spaces(BOX, ACTION), [1], drop)
    seen = env.observation(np.array([0.25, np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(seen, [0.25, np.nan] if drop else [0.25, 0, np.nan])
    assert seen.dtype == np.float32


@pytest.mark.parametrize(
    ("id", "env_kwargs"), [("TMaze", {"length": 0}), ("TMaze", {"active": 1}), ("MemoryChain", {"n_bits": 0})]
)
def test_sizes_of_memory_environments_that_there_are_not(id, env_kwargs):
    with pytest.raises(ValueError, match=f"cannot make 'relmem/{id}-v0': {next(iter(env_kwargs))} must be"):
        make_vec_env(f"relmem/{id}-v0", env_kwargs=env_kwargs)


@pytest.mark.parametrize(
    ("id", "package"), [("popgym-RepeatPreviousEasy-v0", "popgym"), ("MiniGrid-MemoryS11-v0", "minigrid")]
)
def test_a_suite_that_is_not_installed_is_named_with_its_extra(id, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ValueError, match=rf"^'{id}' needs the package {package}, which `pip install relmem\[{package}\]`"
    ):
        make_vec_env(id)


def test_popgym_shows_the_last_action_and_marks_the_first_observation():
    pytest.importorskip("popgym")
    env = make_vec_env("popgym-RepeatPreviousEasy-v0", 1, seed=0)
    assert env.observation_space == spaces.Box(0, 1, (10,), np.float32)  # card and action of 4, and the mark of 2
    seen = [env.reset()[0]]
    rewards, done = [], False
    while not done:  # name the suit that was seen three observations before this one
        card = seen[-4][:4].argmax() if len(seen) >= 4 else 0
        obs, (reward,), (done,), (info,) = env.step([card])
        seen.append(info["terminal_observation"] if done else obs[0])
        rewards.append(reward)
        assert seen[-1][4:8].argmax() == card and seen[-1][8] == 1
    assert seen[0][4:].tolist() == [1, 0, 0, 0, 0, 1] and sum(rewards) == pytest.approx(1.0)
    battle = make_vec_env("popgym-BattleshipEasy-v0", 2)
    assert battle.reset().shape == (2, 20) and battle.action_space == spaces.MultiDiscrete([8, 8])


def test_minigrid_shows_cells_alone():
    pytest.importorskip("minigrid")
    env = make_vec_env("MiniGrid-MemoryS11-v0", 2, seed=0, env_kwargs={"agent_view_size": 3})
    obs = env.reset()
    assert obs.shape == (2, 3 * 3 * 20) and set(np.unique(obs)) == {0, 1}
    assert (obs.reshape(2, 9, 20).sum(axis=2) == 3).all()  # kind, colour and state of each cell


@pytest.mark.parametrize(("id", "width", "null"), [("CartPole-v1", 4 + 2 + 2, [1, 0]), ("Pendulum-v1", 3 + 1 + 2, [0])])
def test_the_last_action_stands_beside_an_observation_of_popgym(id, width, null):
    plain, wrapped = gymnasium.make(id), POPGymObservation(gymnasium.make(id))
    check_env(wrapped)
    n = plain.observation_space.shape[0]
    (obs, _), (expected, _) = wrapped.reset(seed=1), plain.reset(seed=1)
    assert wrapped.observation_space.shape == (width,)
    np.testing.assert_array_equal(obs, [*expected, *null, 0, 1])
    action, shown = (1, [0, 1]) if id == "CartPole-v1" else (np.array([0.25], np.float32), [0.25])
    obs, expected = wrapped.step(action)[0], plain.step(action)[0]
    np.testing.assert_array_equal(obs[:n], expected)
    np.testing.assert_array_equal(obs[n:], [*shown, 1, 0])


def test_the_first_observation_of_popgym_shows_the_action_zero_and_there_must_be_one():
    def first(space):
        return POPGymObservation(Spaces(BOX, space)).reset(seed=0)[0][3:].tolist()

    assert first(spaces.Discrete(3, start=-1)) == [0, 1, 0, 0, 1]
    assert first(spaces.MultiDiscrete([2, 3])) == [1, 0, 1, 0, 0, 0, 1]
    for space in (spaces.Discrete(3, start=1), spaces.Box(1, 2, (2,))):
        with pytest.raises(ValueError, match="the first observation shows the action 0, which is none of "):
            first(space)


def test_the_last_action_is_not_shown_twice(monkeypatch):
    monkeypatch.setitem(sys.modules, "popgym", sys)
    gymnasium.register("popgym-Fake-v0", "gymnasium.envs.classic_control.cartpole:CartPoleEnv")
    try:
        assert make_vec_env("popgym-Fake-v0", last_reward=True).reset()["observation"].shape == (1, 8)
        with pytest.raises(ValueError, match="observations of 'popgym-Fake-v0' show the last action already: leave"):
            make_vec_env("popgym-Fake-v0", last_action=True)
    finally:
        gymnasium.registry.pop("popgym-Fake-v0")


def test_an_environment_whose_constructor_does_not_know_render_mode_can_be_made():
    class Inherits(Picture):
        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

        def __init__(self):
            pass

    gymnasium.registry.pop("relmem-test/Inherits-v0", None)
    gymnasium.register(id="relmem-test/Inherits-v0", entry_point=Inherits)
    assert make_vec_env("relmem-test/Inherits-v0").reset().shape == (1, 3, 40, 60)
