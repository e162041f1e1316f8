"""``FrameSkip`` on scripted environments, whose every frame is known."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from relmem.envs import FrameSkip


class Script(gymnasium.Env):
    """Frame t pays t; the episode ends with frame ``length``, by truncation where ``truncate`` is set.

    Images show a pixel of brightness 100 + t at place t; other observations are (t, -t).
    """

    def __init__(self, image: bool, length: int = 100, truncate: bool = False) -> None:
        self.image, self.length, self.truncate = image, length, truncate
        self.observation_space = spaces.Box(0, 255, (1, 10, 10), np.uint8) if image else spaces.Box(-100, 100, (2,))
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        self.frame, self.actions = 0, []
        return self.observation(), {}

    def step(self, action):
        self.frame += 1
        self.actions.append(action)
        ended = self.frame == self.length
        info = {"frame": self.frame}
        return self.observation(), self.frame, ended and not self.truncate, ended and self.truncate, info

    def observation(self):
        if not self.image:
            return np.array([self.frame, -self.frame], dtype=np.float32)
        image = np.zeros(100, dtype=np.uint8)
        image[self.frame % 100] = 100 + self.frame
        return image.reshape(1, 10, 10)


def visible_frames(image: np.ndarray) -> list[int]:
    """The frames that an image of ``Script`` shows, the oldest first."""
    return sorted(int(value) - 100 for value in image[image > 0])


@pytest.mark.parametrize("frame_skip", [2, 3, 4, 16, 32])
def test_repeats_the_action_sums_rewards_and_takes_the_maximum_of_the_last_two_frames(frame_skip):
    env = FrameSkip(Script(image=True), frame_skip)
    obs, _ = env.reset()
    assert visible_frames(obs) == [0]
    for step in range(3):
        obs, reward, terminated, truncated, info = env.step(step)
        first, last = step * frame_skip + 1, (step + 1) * frame_skip
        assert visible_frames(obs) == [last - 1, last]
        assert reward == sum(range(first, last + 1))
        assert env.unwrapped.actions[first - 1 :] == [step] * frame_skip
        assert not terminated
        assert not truncated
        assert info == {"frame": last}


@pytest.mark.parametrize("frame_skip", [0, 1])
def test_zero_and_one_skip_nothing_and_show_each_frame_as_it_is(frame_skip):
    env = FrameSkip(Script(image=True), frame_skip)
    assert env.frames_per_step == 1
    env.reset()
    for frame in (1, 2, 3):
        obs, reward, *_ = env.step(0)
        assert visible_frames(obs) == [frame]
        assert reward == frame


def test_observations_that_are_no_images_are_the_last_one():
    env = FrameSkip(Script(image=False), 4)
    env.reset()
    assert env.step(0)[0].tolist() == [4.0, -4.0]


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize(("length", "shown"), [(5, [5]), (6, [5, 6]), (8, [7, 8])])
def test_an_episode_that_ends_inside_a_repeat(length, shown, truncate):
    env = FrameSkip(Script(image=True, length=length, truncate=truncate), 4)
    env.reset()
    assert env.step(0)[2:4] == (False, False)
    obs, reward, terminated, truncated, _ = env.step(0)
    assert visible_frames(obs) == shown
    assert reward == sum(range(5, length + 1))
    assert (terminated, truncated) == (not truncate, truncate)


def test_a_flickering_object_stays_visible_and_the_environment_s_own_frames_stay_untouched():
    inner = Script(image=True)
    frames = []
    inner_observation = inner.observation
    inner.observation = lambda: frames.append(inner_observation()) or frames[-1]
    env = FrameSkip(inner, 2)
    env.reset()
    env.step(0)
    assert [visible_frames(frame) for frame in frames] == [[0], [1], [2]]


@pytest.mark.parametrize("frame_skip", [-1, 2.0, 1.5, "4", None, True, float("nan")])
def test_refuses_what_is_no_number_of_frames(frame_skip):
    with pytest.raises(ValueError, match=r"frame_skip must be an integer of at least 0.* got"):
        FrameSkip(Script(image=True), frame_skip)


def test_takes_integers_of_numpy():
    assert FrameSkip(Script(image=True), np.int64(4)).frames_per_step == 4
