"""``relmem train``: from a command line to a run folder. What trains on a task goes on in ``cli.train_task``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from ..experiment.pictures import draw_learning_curve
from . import train_task
from .build import load_model, make_env, make_model
from .callbacks import Checkpoints, EpisodeLog, Frames, ProgressBar, Stop, read_episodes
from .config import TrainConfig
from .interrupt import StopRequest
from .options import Invocation, parse
from .resume import require_same_run
from .run_folder import RunFolder, make_default_path, save_atomically, saved_on_failure
from .tensorboard_log import tensorboard_logger

EVALUATION_ENVS = 8
EVALUATION_SECONDS = 20.0  # an interrupted run should be over within 30
EVALUATION_SEED = 2**30  # plus the run's: that of resumed runs grows by their steps, and does not come as far


class Run(NamedTuple):
    """A training that is ready to start."""

    model: BaseAlgorithm
    config: TrainConfig
    folder: RunFolder
    invocation: Invocation
    argv: Sequence[str]


def prepare(argv: Sequence[str]) -> Run | train_task.TaskRun:
    """Check everything that can be checked before training; only then make the run folder.

    :param argv: the command line after ``relmem train``
    :raises ValueError: if the command line asks for something impossible
    """
    invocation = parse(argv)
    config = invocation.config
    if not isinstance(config, TrainConfig):
        return train_task.prepare(config, invocation, argv)
    if invocation.resume:
        folder = RunFolder(invocation.resume)
        folder.hold()
        require_same_run(folder, config)
        model = load_model(config, folder.newest_checkpoint())
    else:
        if invocation.run_dir:
            RunFolder(invocation.run_dir).require_free()
        model = make_model(config)
        folder = RunFolder(invocation.run_dir or make_default_path(invocation.name))
        folder.create(config, argv)
    return Run(model, config, folder, invocation, argv)


def execute(run: Run | train_task.TaskRun) -> int:
    """Train, save, evaluate.

    :return: exit code: 0, or 128 plus the number of the signal that ended the run early
    """
    if isinstance(run, train_task.TaskRun):
        return train_task.execute(run)
    model, folder, config = run.model, run.folder, run.config
    if run.invocation.resume:
        if model.num_timesteps >= config.total_timesteps:
            print(
                f"The run in {folder.path} is finished with {model.num_timesteps:,} of {config.total_timesteps:,} "
                "steps; a larger --total_timesteps continues it."
            )
            return 0
        folder.log_resumption(config, run.argv)
    print(f"Run folder:  {folder.path}\nTensorBoard: {folder.tensorboard_command()}", flush=True)
    model.set_logger(tensorboard_logger(folder.path, model.num_timesteps))
    with StopRequest() as stop:
        with saved_on_failure(model, model.policy, folder):
            learn(model, folder, config.total_timesteps, stop)
        save_atomically(model, folder.model)  # before anything that may fail or take time
        finish(model, folder, config, run.invocation.smoke, stop)
    model.logger.close()
    return 128 + stop.signal if stop.signal else 0


def learn(model: BaseAlgorithm, folder: RunFolder, total_timesteps: int, stop: StopRequest) -> None:
    """Train until the model has taken so many agent steps in all, or until a stop is asked for."""
    env = model.get_env()
    assert env is not None
    progress, episodes = ProgressBar(total_timesteps), EpisodeLog(folder.episodes)
    callbacks = [Stop(stop), Frames(env.get_attr("frames_per_step")[0]), episodes, Checkpoints(folder), progress]
    try:
        model.learn(total_timesteps - model.num_timesteps, callbacks, reset_num_timesteps=False)
    except KeyboardInterrupt:
        if stop.again:
            raise
    finally:
        stop.at_once = False  # the last update is over
        progress.close()
        episodes.close()


def finish(model: BaseAlgorithm, folder: RunFolder, config: TrainConfig, smoke: bool, stop: StopRequest) -> None:
    """Evaluate the trained policy, unless the user has no time for that, and draw the learning curve."""
    env = make_env(config, EVALUATION_ENVS, config.seed + EVALUATION_SEED)
    returns = np.empty(0)
    with stop.immediate():
        returns = evaluate(model, env, seconds=1.0 if smoke else EVALUATION_SECONDS)
    mean = float(np.mean(returns)) if len(returns) else None
    if mean is None:
        print("Final evaluation: no episode ended within the time for it.")
    else:
        print(
            f"Final evaluation: mean return {mean:.1f} of the most probable actions, over the {len(returns)} of "
            f"{EVALUATION_ENVS} episodes that ended in time."
        )
        model.logger.record("eval/mean_reward", mean)
        model.logger.record("eval/episodes", len(returns))
        model.logger.dump(model.num_timesteps)

    steps, episode_returns, _ = read_episodes(folder.episodes).T
    title = f"{folder.path.name}: {config.core['name']}, {config.algo.name}, {config.env.id}, seed {config.seed}"
    draw_learning_curve(folder.curve, steps, episode_returns, title, env.get_attr("frames_per_step")[0], mean)
    env.close()
    print(f"Saved {folder.model} and {folder.curve}.")


def evaluate(model: BaseAlgorithm, env: VecEnv, seconds: float) -> np.ndarray:
    """Play the first episode of each environment with the most probable actions.

    :param seconds: time after which episodes still running are left out
    :return: the return of each finished episode
    """
    deadline = time.monotonic() + seconds
    running = np.ones(env.num_envs, dtype=bool)
    returns = np.zeros(env.num_envs)
    obs, state, starts = env.reset(), None, np.ones(env.num_envs, dtype=bool)
    while running.any() and time.monotonic() < deadline:
        actions, state = model.predict(obs, state, starts, deterministic=True)  # type: ignore[arg-type]
        obs, rewards, starts, _ = env.step(actions)
        returns += running * rewards
        running &= ~starts
    return returns[~running]
