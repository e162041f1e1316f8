"""ALE's native vector environment as a Stable-Baselines3 ``VecEnv``: many Atari games stepped by C++ threads."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, cast

import gymnasium
import numpy as np
from ale_py.env import AtariEnv
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from ..common.options import Count, Fraction, Natural, require_options
from ..common.output import stage
from ..common.processors import available_processors
from .atari import EPISODES_PER_SEED, MAX_FRAMES, START_FRAMES, next_seed
from .checks import Crop, ImageSize, crop_window, image_shape, require_rom
from .flicker import Blanks
from .frame_skip import frames_per_step

NO_LIMIT = 2**31 - 1


class AtariVecEnv(VecEnv):
    """``n_envs`` copies of one Atari game, with one grey frame per observation: uint8 [N, 1, H, W].

    Frames are skipped as ``FrameSkip`` does, actions are never sticky and rewards are not clipped. An episode starts
    with FIRE (where the game has it) and a random number of no-ops, fewer than 30 frames in all, and ends with the
    game, not with a life. Environments that end are reset within the same step; their ``infos`` then hold what SB3
    expects: ``terminal_observation``, ``TimeLimit.truncated`` and Monitor's ``episode`` statistics, with the length in
    agent steps.

    The terminal observation at a time limit, where the value after it counts, is the image that the last step led to,
    like any other. At the end of a game, after which nothing counts, it is older: the emulator does not draw the frame
    that ends a game. It then repeats the previous observation; where the game ends with the very last frame of a skip,
    it is the pixel-wise maximum of the previous observation and the last frame but one.

    ``step_async`` hands the actions to the emulator threads and returns at once, so that the caller can work until
    ``step_wait``.

    :param game: name of the ROM, such as ``"pong"``
    :param n_envs: number of environments N
    :param frame_skip: emulator frames per agent step; 0 means no skipping, the same as 1
    :param seed: environment i is seeded with ``seed + i`` at the first reset; None: at random
    :param image_size: side of the square observations, or (height, width); (210, 160) is the native size of most games
    :param max_frames: frames after which an episode is cut off, with the step that reaches them
    :param n_threads: number of emulator threads; None: one for each processor that this process may use
    :param flicker: probability with which an observation is blank, all zeros, as ``Flicker`` draws it
    :param crop: [first row, row behind the last] of the native frame that are shown; None: all. The emulator cannot
        crop: it resizes whole frames, to as many rows as leave the crop with those asked for
    :raises ValueError: if an argument is out of range, the game is unknown or its ROM is missing
    """

    def __init__(
        self,
        game: str,
        n_envs: Count,
        frame_skip: Natural = 4,
        seed: Natural | None = None,
        image_size: ImageSize = 84,
        max_frames: Count = MAX_FRAMES,
        n_threads: Count | None = None,
        flicker: Fraction = 0.0,
        crop: Crop | None = None,
    ) -> None:
        require_options(AtariVecEnv, locals())
        require_rom(game)
        self.frames_per_step = frames_per_step(frame_skip)
        self._max_steps = math.ceil(max_frames / self.frames_per_step)
        height, width = image_shape(image_size)
        whole, self._rows = crop_window(crop, height, native_height(game) if crop else height)
        self._ale = AtariVectorEnv(
            game,
            int(n_envs),
            num_threads=int(min(n_envs, n_threads or available_processors())),
            max_num_frames_per_episode=NO_LIMIT,  # ALE would cut within a step, and show the observation before it
            repeat_action_probability=0.0,
            autoreset_mode="SameStep",
            img_height=whole,
            img_width=width,
            stack_num=1,
            frameskip=self.frames_per_step,
            maxpool=self.frames_per_step > 1,
            noop_max=START_FRAMES,
            use_fire_reset=True,
            reward_clipping=False,
        )
        self._blanks = Blanks(flicker, n_envs)
        self._pending = False  # between step_async and step_wait
        self._frames = np.zeros((n_envs, 1, height, width), dtype=np.uint8)  # the current observations
        self._returns = np.zeros(n_envs)
        self._lengths = np.zeros(n_envs, dtype=np.int64)
        # From which each game of an environment can be played again: its last seed, the episodes begun since, and the
        # actions of this one.
        self._game_seeds = np.zeros(n_envs, dtype=np.int64)
        self._begun = np.zeros(n_envs, dtype=np.int64)
        self._played = [bytearray() for _ in range(n_envs)]
        self._start_time = time.time()
        self._n_actions = len(self._ale.ale.get_action_set())
        observation_space = spaces.Box(0, 255, (1, height, width), dtype=np.uint8)
        super().__init__(n_envs, observation_space, self._ale.single_action_space)
        self.seed(seed)

    def reset(self) -> np.ndarray:
        if self._pending:
            self.step_wait()
        # ALE takes seeds of 31 bits; SB3 draws them with 32.
        seeds = [seed % 2**31 for seed in self._seeds if seed is not None]
        frames, ale_info = self._ale.reset(seed=np.array(seeds) if seeds else None)
        self._frames = frames[:, :, self._rows]
        if seeds:
            self._blanks.seed(seeds)
            self._game_seeds[:] = seeds
            self._begun[:] = 0
        self._begun += 1
        self._played = [bytearray() for _ in range(self.num_envs)]
        self._frames[self._draw_blanks()] = 0
        self._reset_seeds()
        self.reset_infos = [env_info(ale_info, i) for i in range(self.num_envs)]
        self._returns[:] = 0.0
        self._lengths[:] = 0
        return self._frames

    def step_async(self, actions: np.ndarray) -> None:
        actions = np.asarray(actions, dtype=np.int64)
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() >= self._n_actions:
            # Checked here because an emulator thread that meets an unknown action never answers.
            raise ValueError(f"actions must be {self.num_envs} integers from 0 to {self._n_actions - 1}, got {actions}")
        if self._pending:  # an interrupt came between the last two calls
            self.step_wait()
        self._ale.send(actions)
        for played, action in zip(self._played, actions.tolist(), strict=True):
            played.append(action)
        self._pending = True

    def step_wait(self) -> VecEnvStepReturn:
        # Before and not after: an interrupt during the call is raised behind it, when the results have been taken.
        self._pending = False
        # ALE hands over freshly allocated arrays: what is returned here is never overwritten.
        frames, rewards, terminated, _, ale_info = self._ale.recv()
        self._returns += rewards
        self._lengths += 1
        truncated = (self._lengths >= self._max_steps) & ~terminated
        dones = terminated | truncated
        blank = self._draw_blanks()
        final_obs: Any = (ale_info.get("final_obs"), frames)  # of games that ended, and of those to be cut off
        renewed = dones & (self._begun >= EPISODES_PER_SEED)
        if (begins := truncated | renewed).any():
            self._game_seeds[renewed] = [next_seed(int(seed)) for seed in self._game_seeds[renewed]]
            self._begun[renewed] = 0
            seeds = np.where(renewed, self._game_seeds, -1)[begins]  # -1: the generator goes on
            frames, ale_info = self._ale.reset(seed=seeds, options={"reset_mask": begins})
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in dones.nonzero()[0]:
            infos[i] = {
                "terminal_observation": final_obs[int(truncated[i])][i, :, self._rows] * np.uint8(not blank[i]),
                "TimeLimit.truncated": bool(truncated[i]),
                "episode": {
                    "r": float(self._returns[i]),
                    "l": int(self._lengths[i]),
                    "t": round(time.time() - self._start_time, 6),
                },
            }
            self._returns[i] = 0.0
            self._lengths[i] = 0
            self._begun[i] += 1
            self._played[i].clear()
            self.reset_infos[i] = env_info(ale_info, i)
            blank[i] = self._blanks.draw(i)  # the first observation of the next episode
        self._frames = frames[:, :, self._rows]
        self._frames[blank] = 0
        return self._frames, rewards.astype(np.float32), dones, infos

    def _draw_blanks(self) -> np.ndarray:
        """Which environments show nothing after this step or reset [N]."""
        return np.array([self._blanks.draw(i) for i in range(self.num_envs)])

    def save_state(self) -> dict[str, Any]:
        """Where the games are, between two steps: what they can be played again from."""
        return {
            "seeds": self._game_seeds,
            "begun": self._begun,
            "played": self._played,
            "returns": self._returns,
            "lengths": self._lengths,
            "frames": self._frames,
            "blanks": self._blanks.generators,
        }

    def load_state(self, state: dict[str, Any]) -> bool:
        """Play the games again, up to where those of another vector environment were: the emulator's own states cannot
        be taken out of its threads, but nothing is sticky, so the same actions lead to the same frames.

        :return: whether they do; if not, ``reset`` begins new games
        :raises ValueError: if there are not as many environments
        """
        played = state["played"]
        if len(played) != self.num_envs:
            raise ValueError(f"the state is of {len(played)} games, and these are {self.num_envs}")
        if self._pending:
            self.step_wait()
        steps = max(map(len, played))
        shown = frames = state["frames"]
        self._ale.reset()  # all have to have been reset once
        with stage(f"playing {self.num_envs} games again up to where they were, {steps:,} steps"):
            for t in range(steps + 1):
                ready = [i for i in range(self.num_envs) if t >= steps - len(played[i])]
                for i in ready:
                    if t == steps - len(played[i]):  # all end at the same step
                        frames = self._begin_game(i, int(state["seeds"][i]), int(state["begun"][i]))
                if t == steps:
                    break
                actions = np.zeros(self.num_envs, dtype=np.int64)
                for i in ready:
                    actions[i] = played[i][t - steps + len(played[i])]
                self._ale.send(actions)
                frames = self._ale.recv()[0]
        self._frames = frames[:, :, self._rows]
        blank = ~shown.reshape(self.num_envs, -1).any(axis=1)
        if not (self._frames[~blank] == shown[~blank]).all():
            return False
        self._frames[blank] = 0
        self._game_seeds, self._begun, self._played = state["seeds"], state["begun"], played
        self._returns, self._lengths = state["returns"], state["lengths"]
        self._blanks.generators = state["blanks"]
        return True

    def _begin_game(self, i: int, seed: int, begun: int) -> np.ndarray:
        """Begin the ``begun``-th game of environment i after it was seeded."""
        mask = np.arange(self.num_envs) == i
        for number in range(begun):
            frames, _ = self._ale.reset(seed=np.array([seed]) if number == 0 else None, options={"reset_mask": mask})
        return frames

    def close(self) -> None:
        vars(self).pop("_ale", None)  # its destructor ends the emulator threads

    def get_images(self) -> Sequence[np.ndarray]:
        """The current observations in the three equal channels of a grey RGB image: N arrays [H, W, 3]."""
        return [np.repeat(frame.transpose(1, 2, 0), 3, axis=2) for frame in self._frames]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for SB3's ``Monitor``, whose episode statistics are in ``infos``; there are no other wrappers."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """What all games share (``render_mode``, ``action_space``, ...): they have no Python objects of their own."""
        value = "rgb_array" if attr_name == "render_mode" else getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise AttributeError(f"cannot set '{attr_name}': Atari games in ALE's vector environment have no attributes")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(f"cannot call '{method_name}': Atari games in ALE's vector environment have no methods")


def native_height(game: str) -> int:
    """Rows of a game's frames: 210 of most, 250 of some."""
    env = AtariEnv(game, obs_type="grayscale")
    height = cast(int, env.observation_space.shape[0])  # type: ignore[index]
    env.close()
    return height


def env_info(ale_info: dict[str, np.ndarray], i: int) -> dict[str, int]:
    """What ALE's single environment tells about environment i after a reset: its lives and frame numbers."""
    return {key: int(ale_info[key][i]) for key in ("lives", "episode_frame_number", "frame_number")}
