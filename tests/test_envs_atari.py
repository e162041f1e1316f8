"""Atari: the vector and the single environment against the bare emulator, against each other, and inside SB3."""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace

import ale_py
import gymnasium
import numpy as np
import pytest
from ale_py import roms
from gymnasium.spaces import Box
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from relmem.envs import AtariVecEnv, make_atari_env, make_vec_env
from relmem.envs.checks import crop_window
from relmem.envs.make import ALE_GAMES

SKIPS = (1, 4, 16, 32)
NATIVE = (210, 160)  # the size of most games' frames: nothing is resized


class RawGame:
    """A game played frame by frame on the bare emulator."""

    def __init__(self, game: str) -> None:
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(roms.get_rom_path(game))
        self.actions = self.ale.getMinimalActionSet()

    def start(self, frames: int) -> np.ndarray:
        """Begin an episode with FIRE and no-ops, ``frames`` in all, and return the screen [210, 160]."""
        self.ale.reset_game()
        for k in range(frames):
            self.ale.act(ale_py.Action.NOOP if k or ale_py.Action.FIRE not in self.actions else ale_py.Action.FIRE)
        self.frames = 0
        return self.ale.getScreenGrayscale()

    def step(self, action: int, repeats: int, max_frames: int) -> tuple[list[np.ndarray], float, bool, bool]:
        """Repeat an action until the game ends: the screens it showed, the summed reward, terminated, truncated."""
        screens, reward, terminated = [], 0.0, False
        while len(screens) < repeats and not terminated:
            reward += self.ale.act(self.actions[action])
            screens.append(self.ale.getScreenGrayscale())
            self.frames += 1
            terminated = self.ale.game_over()
        return screens, reward, terminated, self.frames >= max_frames and not terminated


def start_frames(env: AtariVecEnv, i: int) -> int:
    """With how many frames of FIRE and no-ops the current episode of environment i began."""
    return env.reset_infos[i]["episode_frame_number"]


@pytest.mark.slow
@pytest.mark.parametrize("frame_skip", SKIPS)
@pytest.mark.parametrize("game", ["pong", "breakout"])
def test_vector_env_plays_what_the_bare_emulator_plays(game, frame_skip):
    repeats, max_frames = max(frame_skip, 1), 850
    env = AtariVecEnv(game, 2, frame_skip, seed=5, image_size=NATIVE, max_frames=max_frames)
    raw = [RawGame(game), RawGame(game)]
    obs = env.reset()
    for i in range(2):
        np.testing.assert_array_equal(obs[i, 0], raw[i].start(start_frames(env, i)))

    rng = np.random.default_rng(0)
    endings = []
    for _ in range(2000 // repeats):
        previous = obs
        actions = rng.integers(env.action_space.n, size=2)
        obs, rewards, dones, infos = env.step(actions)
        for i in range(2):
            screens, reward, terminated, truncated = raw[i].step(actions[i], repeats, max_frames)
            assert rewards[i] == reward
            assert dones[i] == (terminated or truncated)
            if dones[i]:
                endings.append(truncated)
                assert infos[i]["TimeLimit.truncated"] == truncated
                if truncated:
                    last = np.maximum.reduce(screens[-2:] if repeats > 1 else screens)
                else:  # ALE does not draw the frame that ends a game, and shows what was there before
                    last = np.maximum.reduce([previous[i, 0], *screens[max(repeats - 2, 0) : -1]])
                np.testing.assert_array_equal(infos[i]["terminal_observation"][0], last)
                screens = [raw[i].start(start_frames(env, i))]
            np.testing.assert_array_equal(obs[i, 0], np.maximum.reduce(screens[-2:] if repeats > 1 else screens[-1:]))
    assert len(endings) >= 4
    assert (game == "pong") in endings  # Pong was cut off, Breakout was lost


@pytest.mark.parametrize("frame_skip", SKIPS)
def test_single_env_plays_what_the_bare_emulator_plays(frame_skip):
    repeats, max_frames = max(frame_skip, 1), 333  # with skipping, ends with the step that reaches them
    env = make_atari_env("breakout", frame_skip, image_size=NATIVE, max_frames=max_frames)
    raw = RawGame("breakout")
    obs, _ = env.reset(options={"start_frames": 9})
    np.testing.assert_array_equal(obs[0], raw.start(9))
    rng = np.random.default_rng(1)
    done = False
    while not done:
        action = rng.integers(4)
        obs, reward, terminated, truncated, _ = env.step(action)
        screens, raw_reward, *raw_end = raw.step(action, repeats, max_frames)
        np.testing.assert_array_equal(obs[0], np.maximum.reduce(screens[-2:] if repeats > 1 else screens[-1:]))
        assert (reward, terminated, truncated) == (raw_reward, *raw_end)
        done = terminated or truncated
    assert truncated


@pytest.mark.slow
@pytest.mark.parametrize("frame_skip", [1, 4])
@pytest.mark.parametrize("game", ["pong", "space_invaders"])
def test_vector_and_single_env_show_the_same(game, frame_skip):
    vector = AtariVecEnv(game, 1, frame_skip, seed=1, max_frames=1200)
    single = make_atari_env(game, frame_skip, max_frames=1200)
    assert single.observation_space == vector.observation_space
    assert single.action_space == vector.action_space

    rng = np.random.default_rng(2)
    shown = [vector.reset()[0]]
    expected = [single.reset(options={"start_frames": start_frames(vector, 0)})[0]]
    episodes = 0
    for _ in range(2500 // frame_skip):
        action = rng.integers(vector.action_space.n)
        obs, rewards, dones, _ = vector.step(np.array([action]))
        single_obs, reward, terminated, truncated, _ = single.step(action)
        assert (rewards[0], dones[0]) == (reward, terminated or truncated)
        if dones[0]:
            episodes += 1
            single_obs, _ = single.reset(options={"start_frames": start_frames(vector, 0)})
        shown.append(obs[0])
        expected.append(single_obs)
    assert episodes >= 2
    difference = np.abs(np.stack(shown).astype(int) - np.stack(expected))
    assert difference.max() <= 1  # two ways of rounding the mean of an area
    assert (difference > 0).mean() < 1e-3


@pytest.mark.skipif(sys.platform != "linux", reason="ALE draws the starts with the C++ library's own distribution")
def test_vector_env_i_and_a_single_env_with_seed_plus_i_play_the_same_episodes():
    vector = AtariVecEnv("pong", 3, 4, seed=20, image_size=NATIVE, max_frames=40)
    single = make_atari_env("pong", 4, image_size=NATIVE, max_frames=40)
    vector_obs = vector.reset()
    single_obs, _ = single.reset(seed=22)
    starts = set()
    for _ in range(50):
        np.testing.assert_array_equal(vector_obs[2], single_obs)
        starts.add(start_frames(vector, 2))
        vector_obs, _, dones, _ = vector.step(np.full(3, 2))
        single_obs, _, _, truncated, _ = single.step(2)
        assert dones[2] == truncated
        if truncated:
            single_obs, _ = single.reset()
    assert len(starts) >= 3


@pytest.mark.parametrize(("frame_skip", "max_frames"), [(32, 1000), (16, 1000), (16, 160), (4, 161), (0, 100)])
def test_at_a_time_limit_the_terminal_observation_is_where_the_last_step_led(frame_skip, max_frames):
    cut = AtariVecEnv("pong", 2, frame_skip, seed=0, max_frames=max_frames)
    longer = AtariVecEnv("pong", 2, frame_skip, seed=0)
    cut.reset(), longer.reset()
    rng = np.random.default_rng(0)
    steps = int(np.ceil(max_frames / max(frame_skip, 1)))
    expected = None
    for step in range(steps):
        previous, actions = expected, rng.integers(6, size=2)
        expected, *_ = longer.step(actions)
        _, _, dones, infos = cut.step(actions)
        assert dones.tolist() == [step == steps - 1] * 2
    shown = np.stack([info["terminal_observation"] for info in infos])
    np.testing.assert_array_equal(shown, expected)
    assert not np.array_equal(shown, previous)
    assert all(info["TimeLimit.truncated"] for info in infos)


@pytest.mark.slow
def test_environments_reach_their_time_limits_one_by_one():
    """A game that ends by itself puts its environment out of step with the others, whose episodes go on."""
    env = AtariVecEnv("breakout", 3, 16, seed=0, image_size=NATIVE, max_frames=800)
    raw = [RawGame("breakout") for _ in range(3)]
    env.reset()
    for i in range(3):
        raw[i].start(start_frames(env, i))
    rng, ends = np.random.default_rng(0), set()
    for _ in range(140):
        actions = rng.integers(4, size=3)
        obs, rewards, dones, infos = env.step(actions)
        for i in range(3):
            screens, reward, terminated, truncated = raw[i].step(actions[i], 16, 800)
            assert (rewards[i], dones[i]) == (reward, terminated or truncated)
            assert infos[i].get("TimeLimit.truncated", False) == truncated
            screens = [raw[i].start(start_frames(env, i))] if dones[i] else screens[-2:]
            np.testing.assert_array_equal(obs[i, 0], np.maximum.reduce(screens))
        ends.add((int(dones.sum()), sum(info.get("TimeLimit.truncated", False) for info in infos)))
    assert {(1, 0), (1, 1)} <= ends  # one alone by the game, one alone by the limit


def trace(env: AtariVecEnv, steps: int = 15) -> np.ndarray:
    """What the environments show after a reset and under fixed actions [steps + 1, N, 1, H, W]."""
    rng = np.random.default_rng(0)
    return np.stack([env.reset(), *(env.step(rng.integers(6, size=env.num_envs))[0] for _ in range(steps))])


@pytest.mark.slow
def test_seed_and_number_of_threads():
    env = AtariVecEnv("pong", 4, seed=7, n_threads=1)
    first = trace(env)
    assert len({image.tobytes() for image in first[0]}) > 1  # every environment has a seed of its own
    np.testing.assert_array_equal(first, trace(AtariVecEnv("pong", 4, seed=7, n_threads=3)))
    assert not np.array_equal(first[0], trace(AtariVecEnv("pong", 4, seed=70))[0])

    assert not np.array_equal(first[0], env.reset())  # a seed is used once, then the starts go on varying
    assert list(env.seed(7)) == [7, 8, 9, 10]
    np.testing.assert_array_equal(first, trace(env))
    env.seed(2**32 - 2)  # SB3 draws seeds of 32 bits where none is given
    env.reset()


def test_episode_statistics_are_those_of_sb3s_monitor():
    max_frames = 2600
    vector = AtariVecEnv("pong", 1, 16, seed=3, max_frames=max_frames)
    monitored = DummyVecEnv([lambda: Monitor(make_atari_env("pong", 16, max_frames=max_frames))])
    vector.reset()
    monitored.set_options({"start_frames": start_frames(vector, 0)})
    monitored.reset()
    done = False
    while not done:
        _, _, dones, infos = vector.step(np.array([0]))
        _, _, expected_dones, expected_infos = monitored.step(np.array([0]))
        done = dones[0]
        assert done == expected_dones[0]
    for key in ("r", "l"):
        assert infos[0]["episode"][key] == expected_infos[0]["episode"][key]
    assert infos[0]["episode"]["r"] < -1
    assert infos[0]["episode"]["l"] == np.ceil(max_frames / 16)
    assert infos[0]["episode"]["t"] > 0.0
    vector.step(np.array([0]))
    vector.reset()  # cuts an episode off: the next one counts from zero
    for _ in range(200):
        _, _, dones, infos = vector.step(np.array([0]))
        if dones[0]:
            break
    assert infos[0]["episode"]["l"] == np.ceil(max_frames / 16)


@pytest.mark.parametrize("crop", [None, (34, 194)])
@pytest.mark.parametrize("image_size", [84, 60, 42])
@pytest.mark.parametrize("game", ["pong", "breakout"])
def test_vector_and_single_env_agree_at_every_size(game, image_size, crop):
    vector = AtariVecEnv(game, 1, 4, seed=1, image_size=image_size, crop=crop, max_frames=80)
    single = make_atari_env(game, 4, image_size=image_size, crop=crop, max_frames=80)
    assert vector.observation_space == single.observation_space == Box(0, 255, (1, image_size, image_size), np.uint8)
    shown = [(vector.reset()[0], single.reset(seed=1)[0])]
    for t in range(50):
        obs, _, (done,), (info,) = vector.step(np.array([t % 4]))
        single_obs, _, _, truncated, _ = single.step(t % 4)
        assert done == truncated
        if done:
            shown.append((info["terminal_observation"], single_obs))
            single_obs, _ = single.reset()
        shown.append((obs[0], single_obs))
    difference = np.abs(np.array([(a.astype(int) - b) for a, b in shown]))
    assert difference.max() <= 1  # two ways of rounding the mean of an area
    assert (difference > 0).mean() < 0.01


def test_a_crop_at_native_size_is_a_part_of_the_frame():
    whole = trace(AtariVecEnv("pong", 2, seed=1, image_size=NATIVE))
    court = trace(AtariVecEnv("pong", 2, seed=1, image_size=(160, 160), crop=(34, 194)))
    np.testing.assert_array_equal(court, whole[:, :, :, 34:194])


@pytest.mark.parametrize("size", [84, 80, 60, 42, 33])
@pytest.mark.parametrize("crop", [(34, 194), (0, 210), (0, 100), (110, 210), (50, 134)])
def test_a_crop_shows_its_rows_to_within_one_row_of_the_image(size, crop):
    whole, rows = crop_window(crop, size, 210)
    row = 210 / whole
    assert rows.stop - rows.start == size and rows.stop <= whole
    assert abs(rows.start * row - crop[0]) < row and abs(rows.stop * row - crop[1]) < row


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": (100, 100)}, r"crop must be two rows, in rising order, of the 210 of a frame, got \[100, 100\]"),
        ({"crop": (34, 211)}, r"of the 210 of a frame, got \[34, 211\]"),
        ({"crop": (-1, 194)}, "crop must be 2 values in a list"),
        ({"crop": (34, 100)}, r"image_size asks for 84 rows, more than the 66 of the crop \[34, 100\]"),
    ],
)
@pytest.mark.parametrize("make", [make_atari_env, lambda game, **options: make_vec_env("ALE/Pong-v5", **options)])
def test_crops_that_there_are_not(make, options, message):
    with pytest.raises(ValueError, match=message):
        make("pong", **options)


@pytest.mark.parametrize("image_size", [84, 60, 42])
def test_flicker_blanks_the_same_observations_in_the_vector_and_the_single_env(image_size):
    options = {"image_size": image_size, "max_frames": 40, "flicker": 0.5}
    vector, single = AtariVecEnv("pong", 3, 4, seed=20, **options), make_atari_env("pong", 4, **options)
    shown = [(vector.reset()[2], single.reset(seed=22)[0])]
    for _ in range(60):
        obs, _, dones, infos = vector.step(np.full(3, 2))
        single_obs, _, _, truncated, _ = single.step(2)
        assert dones[2] == truncated
        if truncated:  # the last observation of an episode has a draw, and the first of the next one another
            shown.append((infos[2]["terminal_observation"], single_obs))
            single_obs, _ = single.reset()
        shown.append((obs[2], single_obs))
    np.testing.assert_array_equal([not a.any() for a, _ in shown], [not b.any() for _, b in shown])
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in shown)
    assert 20 < sum(not a.any() for a, _ in shown) < 50
    ends = [not a.any() for (a, _), (b, _) in zip(shown[10::11], shown[11::11], strict=False) if a.any() != b.any()]
    assert len(set(ends)) == 2  # either of the two alone is blank at times


def test_flicker_is_seeded_for_each_environment():
    def blanks(n_envs, seed, steps=300, flicker=0.3):
        env = make_vec_env("ALE/Pong-v5", n_envs, seed=seed, image_size=20, max_frames=400, flicker=flicker)
        return ~trace(env, steps).any(axis=(2, 3, 4))  # [steps + 1, N]

    first = blanks(4, 0)
    np.testing.assert_array_equal(first, blanks(4, 0))
    np.testing.assert_array_equal(first[:, :2], blanks(2, 0))  # however many there are
    np.testing.assert_array_equal(first[:, 1:3], blanks(2, 1))
    assert len({column.tobytes() for column in first.T}) == 4
    assert abs(first.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / first.size)
    pairs = (first[1:] & first[:-1]).mean()
    assert abs(pairs - 0.09) < 0.05  # one observation says nothing about the next
    assert not blanks(2, 0, 50, 0.0).any() and blanks(2, 0, 50, 1.0).all()


def test_flicker_changes_nothing_but_what_is_seen():
    plain, flickering = (AtariVecEnv("pong", 2, 16, seed=3, max_frames=900, flicker=p) for p in (0.0, 0.5))
    obs, seen = plain.reset(), flickering.reset()
    for t in range(120):
        for image, shown in zip(obs, seen, strict=True):
            assert not shown.any() or np.array_equal(image, shown)
        (obs, *outcome), (seen, *same) = plain.step(np.full(2, t % 6)), flickering.step(np.full(2, t % 6))
        for a, b in zip(outcome[:2], same[:2], strict=True):
            np.testing.assert_array_equal(a, b)


def test_returns_begin_at_zero_with_every_episode():
    env = AtariVecEnv("pong", 1, 16, seed=3, max_frames=2600)
    env.reset()
    told, summed, total = [], [], 0.0
    while len(told) < 2:
        _, rewards, dones, infos = env.step(np.array([0]))
        total += rewards[0]
        if dones[0]:
            told.append(infos[0]["episode"]["r"])
            summed.append(total)
            total = 0.0
    assert told == summed and summed[0] < 0
    for _ in range(60):
        env.step(np.array([0]))
    env.reset()
    total, dones = 0.0, [False]
    while not dones[0]:
        _, rewards, dones, infos = env.step(np.array([0]))
        total += rewards[0]
    assert infos[0]["episode"]["r"] == total


def test_returned_arrays_are_the_callers():
    env = AtariVecEnv("pong", 2, seed=0, max_frames=40)
    env.reset()
    results = [env.step(np.array([2, 3])) for _ in range(30)]
    copies = [(obs.copy(), rewards.copy(), dones.copy()) for obs, rewards, dones, _ in results]
    for _ in range(30):
        env.step(np.array([3, 2]))
    for (obs, rewards, dones, _), copied in zip(results, copies, strict=True):
        for array, copy in zip((obs, rewards, dones), copied, strict=True):
            np.testing.assert_array_equal(array, copy)
    assert len({id(info) for *_, infos in results for info in infos}) == 60
    obs, rewards, dones, _ = results[0]
    assert (obs.dtype, rewards.dtype, dones.dtype) == (np.uint8, np.float32, np.bool_)


def test_reset_and_close_while_a_step_is_under_way():
    env = AtariVecEnv("pong", 3, seed=0)
    env.reset()
    env.step_async(np.zeros(3, dtype=np.int64))
    assert env.reset().shape == (3, 1, 84, 84)
    assert env.step(np.zeros(3, dtype=np.int64))[0].shape == (3, 1, 84, 84)
    env.step_async(np.zeros(3, dtype=np.int64))
    env.close()
    env.close()


def test_a_step_may_be_interrupted(monkeypatch):
    actions = [np.full(2, a) for a in (2, 3, 5, 0, 4)]
    env, cut = (AtariVecEnv("pong", 2, seed=0) for _ in range(2))
    env.reset(), cut.reset()
    expected = [env.step(action)[0] for action in actions]
    cut.step_async(actions[0])  # and here comes an interrupt
    assert np.array_equal(cut.step(actions[1])[0], expected[1])

    emulator = cut._ale

    def interrupted():
        emulator.recv()
        raise KeyboardInterrupt

    cut._ale = SimpleNamespace(recv=interrupted, send=emulator.send)
    with pytest.raises(KeyboardInterrupt):
        cut.step(actions[2])
    cut._ale = emulator
    assert np.array_equal(cut.step(actions[3])[0], expected[3])
    assert cut.reset().shape == (2, 1, 84, 84)  # which waits for ever if it thinks that a step is under way


@pytest.mark.parametrize("actions", [[0, 6], [-1, 0], [0], [0, 0, 0]])
def test_wrong_actions_are_refused_and_do_no_harm(actions):
    env = AtariVecEnv("pong", 2, seed=0)
    env.reset()
    with pytest.raises(ValueError, match="actions must be 2 integers from 0 to 5"):
        env.step(np.array(actions))
    assert env.step(np.array([0, 5]))[0].shape == (2, 1, 84, 84)


def test_vec_env_interface():
    env = AtariVecEnv("pong", 3, 16)
    env.reset()
    assert env.render_mode == "rgb_array"
    assert env.render().shape == (2 * 84, 2 * 84, 3)
    assert env.get_attr("frames_per_step", indices=[0, 2]) == [16, 16]
    assert not env.has_attr("action_masks")
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(gymnasium.wrappers.TimeLimit, indices=1) == [False]
    with pytest.raises(AttributeError, match="cannot set 'lives'"):
        env.set_attr("lives", 3)
    with pytest.raises(AttributeError, match="cannot call 'get_action_meanings'"):
        env.env_method("get_action_meanings")


@pytest.mark.parametrize("id", ["ALE/Pong-v5", "Pong-v0", "Pong-v4", "PongNoFrameskip-v0", "relmem/PongSkip4-v0"])
def test_all_ids_of_a_game_mean_the_same(id):
    assert id.startswith("relmem/") or ALE_GAMES[id] == "pong"
    expected = trace(make_vec_env("PongNoFrameskip-v4", 2, seed=11))
    np.testing.assert_array_equal(trace(make_vec_env(id, 2, seed=11)), expected)


def test_no_skip_is_the_same_as_a_skip_of_one():
    np.testing.assert_array_equal(*(trace(AtariVecEnv("pong", 2, skip, seed=0)) for skip in (0, 1)))


@pytest.mark.parametrize("id", ["ALE/AirRaid-v5", "ALE/MontezumaRevenge-v5", "ALE/Tetris-v5", "RoadRunner-v4"])
def test_other_games_run(id):
    env = make_vec_env(id)
    assert env.reset().shape == (1, 1, 84, 84)
    obs, *_ = env.step(np.array([env.action_space.n - 1]))
    assert len(np.unique(obs)) > 2


@pytest.mark.parametrize("frame_skip", [0, 4, 16, 32])
def test_registered_pong(frame_skip):
    env = gymnasium.make(f"relmem.envs:relmem/PongSkip{frame_skip}-v0", render_mode="rgb_array")
    assert env.get_wrapper_attr("frames_per_step") == max(frame_skip, 1)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (1, 84, 84), np.uint8)
    env.reset(seed=0)
    before = env.get_wrapper_attr("ale").getEpisodeFrameNumber()
    env.step(0)
    assert env.get_wrapper_attr("ale").getEpisodeFrameNumber() - before == max(frame_skip, 1)
    assert env.render().shape == (*NATIVE, 3)
    assert make_vec_env(f"relmem/PongSkip{frame_skip}-v0").get_attr("frames_per_step") == [max(frame_skip, 1)]

    again = gymnasium.make(env.spec)  # as when a saved configuration is rebuilt
    np.testing.assert_array_equal(again.reset(seed=1)[0], env.reset(seed=1)[0])


def test_stable_baselines3_accepts_the_single_env():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("relmem/PongSkip4-v0"), skip_render_check=True)


def test_stable_baselines3_trains_and_evaluates():
    env = AtariVecEnv("pong", 2, 4, seed=0, max_frames=100)
    model = PPO("CnnPolicy", env, n_steps=32, batch_size=64, n_epochs=1, seed=0, device="cpu")
    model.learn(64)
    assert model.get_env().observation_space.shape == (1, 84, 84)  # no transposition: the images are channel-first
    assert [episode["l"] for episode in model.ep_info_buffer] == [25, 25]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # SB3 warns where episode statistics are missing
        returns, lengths = evaluate_policy(model, env, n_eval_episodes=3, return_episode_rewards=True)
    assert lengths == [25, 25, 25]
    assert all(value <= 0 for value in returns)
