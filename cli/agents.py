"""What the commands that let a trained agent play have in common: which agent it is, and in which environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from ..agents import Algorithm, load
from ..agents.load import saved_file
from ..common.options import require_option
from ..common.output import stage
from ..experiment.agent import EVALUATION_SEED, AgentJob
from ..experiment.config import run_options
from ..experiment.folder import RunFolder
from ..experiment.run import require_device
from .arguments import Arguments
from .options import parse


class Player(NamedTuple):
    """A trained agent in an environment."""

    file: Path
    folder: RunFolder | None  # of its run; None where the file lies elsewhere
    model: Algorithm
    env: VecEnv
    name: str  # of the environment
    seed: int
    deterministic: bool
    changed: dict[str, str]  # options of the environment that are not the run's


def arguments(command: str, description: str, examples: Sequence[str], episodes: int) -> Arguments:
    """A parser with the arguments that these commands share."""
    words = "Its environment is the run's own, but for options such as --env.frame_skip 16."
    parser = Arguments(command, f"{description} {words}", examples)
    parser.add_argument(
        "run", metavar="RUN", help="run folder, also of a run that is not over (its newest checkpoint), or model.zip"
    )
    parser.add_argument("--episodes", type=int, default=episodes, help=f"how many are played ({episodes})")
    parser.add_argument("--stochastic", action="store_true", help="sample actions, in place of the most probable ones")
    parser.add_argument("--seed", type=int, help="of environments and samples (that of the run's own evaluation)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument(
        "--trusted", action="store_true", help="load also a model that may run code (docs/security.md): only your own"
    )
    return parser


def open_player(asked: Any, overrides: Mapping[str, Sequence[str]], n_envs: int, render: bool = False) -> Player:
    """Load the agent that a command line names, and make its environment.

    :param asked: the arguments of ``arguments``
    :param overrides: words behind options ``env.*``
    :param n_envs: number of environments
    :param render: whether they are to be seen
    :raises ValueError: if there is no such agent or environment, they do not go together, or a value is out of range
    """
    require_device(asked.device)
    if asked.seed is not None:
        require_option("seed", run_options().options["seed"].hint, asked.seed)
    if "env.n_envs" in overrides:
        raise ValueError("env.n_envs is for training: how many environments are played in follows from --episodes")
    file = saved_file(asked.run)
    changed = {name: " ".join(words) for name, words in overrides.items()}
    flags = [f"--{name}={text}" for name, text in changed.items()]
    folder = next((place for place in (file.parent, file.parent.parent) if (place / "config.yaml").is_file()), None)
    if folder is not None:
        flags = ["--config", str(folder / "config.yaml"), *flags]
    elif "env.id" not in changed:
        raise ValueError(f"there is no config.yaml beside '{file}': name the agent's environment with --env.id")
    invocation = parse(flags)
    config = invocation.config
    if invocation.job is not AgentJob:
        raise ValueError(f"'{folder}' is the run of a supervised task, which acts in no environment")
    seed = config["seed"] + EVALUATION_SEED if asked.seed is None else asked.seed
    with stage(f"loading '{file}'"):
        model = load(file, trusted=asked.trusted, device=asked.device)
        env = AgentJob(config).make_env(n_envs, seed, render)
    require_same_spaces(model, env, str(file), config["env.id"])
    set_random_seed(seed)
    return Player(
        file, RunFolder(folder) if folder else None, model, env, config["env.id"], seed, not asked.stochastic, changed
    )


def require_same_spaces(model: Algorithm, env: VecEnv, file: str, name: str) -> None:
    """An agent can play where it sees and does what it was trained on.

    :raises ValueError: naming what differs
    """
    if model.observation_space != env.observation_space:
        raise ValueError(
            f"the agent of '{file}' observes {_short(model.observation_space)}, but {name} with these options shows "
            f"{_short(env.observation_space)}"
        )
    if model.action_space != env.action_space:
        raise ValueError(
            f"the agent of '{file}' acts in {_short(model.action_space)}, but {name} takes {_short(env.action_space)}"
        )


def _short(space: Any) -> str:
    return " ".join(str(space).split())
