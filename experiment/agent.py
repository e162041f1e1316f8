"""The job of training an agent in environments."""

from __future__ import annotations

import re
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from ..agents import A3C, IMPALA, Algorithm, MemoryActorCriticPolicy, MemoryPPO, load
from ..agents.cores.registry import core_options, registered_cores
from ..agents.distributed import Launcher, connect
from ..agents.evaluate import Evaluation, evaluate
from ..agents.features import convolutions
from ..agents.normalization import normalize, take_statistics
from ..agents.ppo import minibatch_shape
from ..agents.precision import autocast_dtype
from ..agents.processes import ParallelPPO, join, place_of_process
from ..common.checks import require_choice
from ..common.options import Count, Option, options_of
from ..common.output import say, stage, warn
from ..common.processors import available_processors
from ..envs import AtariVecEnv, make_vec_env
from .callbacks import Evaluations, Watch
from .config import Config, Group, run_options
from .episodes import EpisodeFile, describe_episodes
from .folder import RunFolder
from .job import Job, named
from .pictures import draw_learning_curve
from .progress import Progress
from .room import ADAM, ATARI, ENVIRONMENT, FLOAT, PROCESS, require_room, weights, without_content
from .stop import StopRequest
from .tensorboard_log import log_settings, tensorboard_logger

ALGORITHMS: dict[str, type[Algorithm]] = {"ppo": MemoryPPO, "a3c": A3C, "impala": IMPALA}
WORKERS = ("workers", "min_workers", "max_lag", "launcher")  # options that say how they run, not what is learned
NO_OPTIONS = {
    *("policy", "env", "env_kwargs", "policy_kwargs", "precision", "seed", "device", "launcher", "_init_setup_model"),
    *("verbose", "tensorboard_log", "stats_window_size"),
}
RAY_ADDRESS = "host:port, or auto, that which runs on this machine; null: RAY_ADDRESS, or a new one on this machine"
EVALUATION_ENVS = 8
EVALUATION_SECONDS = 20.0  # an interrupted run should be over within 30
NORMALIZE = (
    "observations and rewards to unit variance by their running statistics, which are saved with the model and stay as "
    "they are in evaluations; also a mapping of options of SB3's VecNormalize"
)
INIT_FROM = "a run folder or saved model whose weights training begins with; all other settings are this run's"
EVALUATION_SEED = 2**30  # plus the run's: that of resumed runs grows by their steps, and does not come as far


class AgentJob(Job):
    """Trains an agent by PPO, A3C or IMPALA."""

    kind, subject, ending, unit = "agent", "env.id", ".zip", "steps"
    total, tested = "total_timesteps", "evaluation"
    may_change = (
        *("total_timesteps", "device", "precision", "threads", "keep", "env.n_threads"),
        *("eval.every", "eval.episodes", "eval.memory", "algo.workers", "algo.min_workers", "algo.max_lag"),
        *("launcher", "ray.address", "track"),
    )
    learner: Algorithm
    episodes: EpisodeFile

    def __init__(self, config: Config, smoke: bool = False, trusted: bool = False) -> None:
        self._env: VecEnv | None = None  # that PPO learns in
        self.ppo = config["algo.name"] == "ppo"
        if config["env.normalize"] and not self.ppo:
            raise ValueError(
                "env.normalize goes with algo.name ppo: each worker of others would normalize by statistics of its own"
            )
        if self.ppo:  # the whole run, also where it is cut down
            shape = (config[f"algo.{name}"] for name in ("bptt_length", "batch_size"))
            minibatch_shape(config["algo.n_steps"], config["env.n_envs"], *shape)
        self.place = place_of_process()
        if self.place.size > 1 and (not self.ppo or config["env.n_envs"] % self.place.size):
            raise ValueError(
                f"the {self.place.size} processes of torchrun train algo.name ppo, not a3c or impala, and share its "
                f"environments equally: env.n_envs must be a multiple of {self.place.size}"
            )
        self.on_ray = config["launcher"] == "ray"
        if self.on_ray and self.ppo:
            raise ValueError(
                "launcher 'ray' is for algo.name impala and a3c; several processes of ppo are torchrun's: docs/scale.md"
            )
        if config["eval.memory"] and config["eval.every"] is None:
            raise ValueError("eval.memory draws at evaluations while training: say with eval.every how often")
        super().__init__(config, smoke, trusted)

    def cut(self, config: Config) -> Config:
        if not self.ppo:
            unrolls = {"algo__unrolls": 1} if config["algo.name"] == "impala" else {}
            return config.but(total_timesteps=64, algo__workers=1, algo__envs_per_worker=1, **unrolls)
        config = config.but(total_timesteps=64, env__n_envs=1, algo__n_steps=min(16, config["algo.n_steps"]))
        return config.but(algo__n_epochs=1, algo__batch_size=None, algo__bptt_length=None)

    @staticmethod
    def groups(core: str, algorithm: str) -> dict[str, Group]:
        """The options of such a run.

        :raises ValueError: if core or algorithm is unknown
        """
        require_choice("algorithm", algorithm, ALGORITHMS)
        env = options_of(make_vec_env, skip=("seed", "render", *(() if algorithm == "ppo" else ("n_envs",))))
        env["kwargs"] = env.pop("env_kwargs")._replace(name="kwargs")
        for name, default in (("id", "PongNoFrameskip-v4"), ("n_envs", 16)):
            if name in env:
                env[name] = env[name]._replace(default=default)
        env["normalize"] = Option("normalize", bool | dict[str, Any], False, NORMALIZE)
        policy, trainer = options_of(MemoryActorCriticPolicy), options_of(ALGORITHMS[algorithm], skip=NO_OPTIONS)
        return {
            "": run_options(
                Option("total_timesteps", Count, 1_000_000, "agent steps, summed over environments"),
                Option("init_from", str | None, None, INIT_FROM),
                Option(
                    "launcher", Launcher, "local", "where workers of a3c and impala run: on this machine, or by ray"
                ),
            ),
            "env": Group("the environment", env),
            "policy": Group("the policy", {name: policy[name] for name in ("features", "bypass", "net_arch")}),
            "core": named("core", core, registered_cores(), core_options(core)),
            "algo": named("algorithm", algorithm, ALGORITHMS, trainer),
            "ray": Group("the Ray cluster", {"address": Option("address", str | None, None, RAY_ADDRESS)}),
            "eval": Group("evaluation", options_of(Evaluations, skip=("folder", "make_env", "evaluated"))),
        }

    @property
    def names(self) -> list[str]:
        game = re.sub(r"(NoFrameskip)?(-v\d+)?$", "", re.split("[:/]", self.config["env.id"])[-1])
        return [game.lower(), self.config["core.name"], self.config["algo.name"]]

    @property
    def network(self) -> MemoryActorCriticPolicy:
        return self.learner.policy

    @property
    def done(self) -> int:
        return self.learner.num_timesteps

    # ---------------------------------------------------------------- prepare

    def prepare(self, checkpoint: Path | None) -> None:
        self._require_room()
        if self.on_ray:
            connect(self.config["ray.address"], self.config["algo.workers"] or available_processors())
        if self.place.size > 1:
            join(self.place)
        self.learner = self._new_model() if checkpoint is None else self._loaded_model(checkpoint)

    def make_env(self, n_envs: int, seed: int, render: bool = False) -> VecEnv:
        """Environments as the run trains on.

        :param render: whether they are to be filmed
        """
        return make_vec_env(self.config["env.id"], n_envs, seed=seed % 2**31, render=render, **self._env_kwargs())

    def _own_envs(self, seed: int) -> VecEnv:
        """Those of all environments that PPO plays in this process; ``close`` closes them."""
        n_envs = self.config["env.n_envs"] // self.place.size
        env = self._env = self.make_env(n_envs, seed + self.place.rank * n_envs)
        if asked := self.config["env.normalize"]:
            settings = asked if isinstance(asked, dict) else {}
            env = self._env = normalize(env, **{"gamma": self.config["algo.gamma"], **settings})
        return env

    def close(self) -> None:
        of_workers = None if self.ppo or not hasattr(self, "learner") else self.learner.env
        for env in (self._env, of_workers):
            if env is not None:
                env.close()

    def _env_kwargs(self) -> dict[str, Any]:
        options = self.config.group("env")
        options["env_kwargs"] = options.pop("kwargs")
        return {name: value for name, value in options.items() if name not in ("id", "n_envs", "normalize")}

    def _evaluation_env(self, n_envs: int | None = None) -> VecEnv:
        n_envs = n_envs or min(EVALUATION_ENVS, self.config["eval.episodes"])
        return self.make_env(n_envs, self.config["seed"] + EVALUATION_SEED)

    def _policy_kwargs(self) -> dict[str, Any]:
        config = self.config
        return {"core": config["core.name"], "core_kwargs": config.group("core"), **config.group("policy")}

    def _new_model(self) -> Algorithm:
        config = self.config
        earlier = load(config["init_from"], self.trusted) if config["init_from"] else None
        arguments = config.group("algo") | {"policy_kwargs": self._policy_kwargs()}
        arguments |= {name: config[name] for name in ("precision", "seed", "device")}
        env: Any = config["env.id"]
        if self.ppo:
            env = self._own_envs(config["seed"])
            kind = MemoryPPO if self.place.size == 1 else ParallelPPO
            model: Algorithm = kind(MemoryActorCriticPolicy, env, **arguments)
        else:
            arguments |= {"env_kwargs": self._env_kwargs(), "launcher": config["launcher"]}
            model = ALGORITHMS[config["algo.name"]](MemoryActorCriticPolicy, env, **arguments)
        if earlier is not None:
            try:
                model.policy.load_state_dict(earlier.policy.state_dict())
            except ValueError as error:
                raise ValueError(f"cannot begin with {config['init_from']}: {error}") from error
            if earlier.normalization and isinstance(env, VecNormalize):
                take_statistics(env, earlier.normalization)
            elif bool(earlier.normalization) != isinstance(env, VecNormalize):
                warn(f"{config['init_from']} was trained with env.normalize {bool(earlier.normalization)}, unlike this")
        return model

    def _loaded_model(self, checkpoint: Path) -> Algorithm:
        config = self.config
        changed = {name: config[name] for name in ("device", "precision")}
        if not self.ppo:
            known = config.group("algo") | {"launcher": config["launcher"]}
            changed |= {name: known[name] for name in WORKERS if name in known}
        kind = ALGORITHMS[config["algo.name"]] if self.place.size == 1 else ParallelPPO
        model = kind.load(checkpoint, trusted=self.trusted, **changed)
        core, options, saved = config["core.name"], config.group("core"), model.policy
        if _spelt_out(saved.core_name, saved.core_kwargs) != _spelt_out(core, options):
            raise ValueError(
                f"checkpoint '{checkpoint}' holds the core '{saved.core_name}' with {saved.core_kwargs}, but the run "
                f"asks for '{core}' with {options}"
            )
        env: Any = config["env.id"]
        if self.ppo:
            env = self._own_envs(config["seed"] + model.num_timesteps)  # new episodes
            if model.normalization:
                take_statistics(env, model.normalization)
        try:
            model.set_env(env)
        except ValueError as error:
            raise ValueError(f"checkpoint '{checkpoint}' does not go with {config['env.id']}: {error}") from error
        if (moment := model.saved_at) is not None and not model.take_up(moment):
            why = moment.why_not_exact
            warn(
                f"{config['env.id']} cannot be taken up in the middle of an episode{why and f' ({why})'}: new episodes "
                "begin, all else goes on as it was"
            )
        return model

    def _require_room(self) -> None:
        """Estimate from one environment and the shapes of the policy what all of the run takes."""
        config, algo, options = self.config, self.config.group("algo"), self.config.group("env")
        workers = 0 if self.ppo else algo["workers"] or available_processors()
        n_envs = options["n_envs"] if self.ppo else workers * algo["envs_per_worker"]
        if options["image_size"]:
            height, width = np.broadcast_to(options["image_size"], 2).tolist()
            require_room({f"images of {height} x {width}": 4.0 * height * width * n_envs})
        in_processes = options["backend"] == "subproc"
        here = {"backend": "auto"}  # also of those that are to have processes of their own
        with closing(make_vec_env(config["env.id"], 1, seed=config["seed"], **self._env_kwargs() | here)) as env:
            spaces_ = env.observation_space, env.action_space
            one = ATARI if isinstance(env.unwrapped, AtariVecEnv) else ENVIRONMENT + in_processes * PROCESS
        arguments = self._policy_kwargs() | {"optimizer_kwargs": {}}  # not fused, which needs numbers
        policy = without_content(lambda: MemoryActorCriticPolicy(*spaces_, lambda _: 0.0, **arguments))
        if policy is None:
            return
        state, obs = FLOAT * int(policy.core.state_size), _bytes(spaces_[0])
        kept = obs
        if (stack := convolutions(policy.features_extractor)) is not None:  # images are kept as they are prepared
            half = autocast_dtype(config["precision"], get_device(config["device"])) is not None
            kept = stack.pixels * FLOAT / (2 if half else 1)
        n_steps = algo["n_steps"] if self.ppo else algo["t_max"]
        sequences = n_steps // (algo["bptt_length"] or n_steps) if self.ppo else 1
        needs = {
            f"the policy with core '{config['core.name']}'": weights(policy, ADAM + 2 * workers),
            f"the states of {n_envs:,} environments": float(n_envs * state * (1 + sequences)),
            f"{n_steps:,} steps of {n_envs:,} environments": float(n_steps * n_envs * (kept + 8 * FLOAT)),
        }
        host = {f"{n_envs:,} environments": n_envs * (one + obs), f"{workers:,} workers": workers * PROCESS}
        if self.on_ray:  # whose workers are elsewhere
            host = {}
        if get_device(config["device"]).type == "cuda":
            require_room(needs, torch.cuda.mem_get_info(get_device(config["device"]))[0])
            needs = {}
        require_room(host | needs)

    # ---------------------------------------------------------------- execute

    def plan(self) -> str:
        algo = self.config.group("algo")
        if self.ppo:
            n_steps, n_envs = algo["n_steps"], self.config["env.n_envs"]
            length, sequences = minibatch_shape(n_steps, n_envs, algo["bptt_length"], algo["batch_size"])
            processes = f" in {self.place.size} processes" if self.place.size > 1 else ""
            rollouts = f"rollouts of {n_envs} environments x {n_steps} steps{processes}"
            return f"{rollouts}, minibatches of {sequences} x {length}"
        workers = algo["workers"] or available_processors()
        segments = f"segments of {algo['envs_per_worker']} environments x {algo['t_max']} steps"
        return f"{workers} worker(s){' on Ray' * self.on_ray}, {segments}"

    def outcome(self) -> str | None:
        return "finished" if self.done >= self.config["total_timesteps"] else None

    def execute(self, folder: RunFolder, stop: StopRequest) -> None:
        self.episodes = EpisodeFile(folder, self.done)
        self.learner.set_logger(tensorboard_logger(folder, self.done))
        if isinstance(self.learner, ParallelPPO):
            self.learner.synchronise()
        if self.outcome():  # only the evaluation is missing
            return
        if not self.done:
            log_settings(self.learner.logger, self.config, "rollout/ep_rew_mean", "eval/mean_reward")
        total = self.config["total_timesteps"]
        watch = Watch(folder, self.episodes, total, self._frames_per_step(), stop, self.place.size == 1)
        callbacks = [
            watch,
            Evaluations(folder, self._evaluation_env, evaluated=self.evaluated, **self.config.group("eval")),
        ]
        try:
            self.learner.learn(total - self.done, callbacks, reset_num_timesteps=False)
        finally:
            watch.close()
            self.learner.roll_back()

    def follow(self) -> None:
        """Train along with the first process, which keeps the run."""
        learner = cast(ParallelPPO, self.learner)
        with suppress(RuntimeError):  # the first process had nothing left to do, and has ended
            learner.synchronise()
            if not self.outcome():
                learner.learn(self.config["total_timesteps"] - self.done, reset_num_timesteps=False)

    def _frames_per_step(self) -> int:
        return cast(VecEnv, self.learner.get_env()).get_attr("frames_per_step")[0]

    # ---------------------------------------------------------------- finish

    def test(self, stop: StopRequest) -> dict[str, Any] | None:
        result, logger = self._evaluate(stop), self.learner.logger
        mean, n = (float(np.mean(result.returns)), len(result.returns)) if result and result.returns else (None, 0)
        if result is None or mean is None:
            say("Final evaluation: cut off before an episode ended.")
        else:
            cut = "" if result.complete else f" of {self.config['eval.episodes']}; the others were cut off"
            say(f"Final evaluation: mean return {mean:.1f} of the most probable actions, over {n} episode(s){cut}.")
            logger.record("eval/mean_reward", mean)
            logger.record("eval/episodes", n)
            logger.dump(self.done)
        logger.close()
        return result and {"mean": mean, "episodes": n, **result._asdict()}

    def _evaluate(self, stop: StopRequest) -> Evaluation | None:
        """All episodes to their end; after a stop, what ends within seconds."""
        episodes, seconds = self.config["eval.episodes"], EVALUATION_SECONDS if stop else None
        with closing(self._evaluation_env()) as env, closing(Progress(episodes, "episodes")) as bar:
            bar.start(0, "evaluation")
            for limit in (1.0 if self.smoke else seconds, EVALUATION_SECONDS):
                try:
                    with stop.immediate(), stage(f"evaluating {episodes} episodes"):
                        return evaluate(self.learner, env, episodes, limit, lambda ended, _: bar.update(ended))
                except FloatingPointError as error:  # as after a training: everything else is kept
                    warn(f"no final evaluation: {error}")
                    break
                # A stop came just now: once more, within seconds.
        return None

    def draw(self, path: Path, title: str, tested: dict[str, Any] | None) -> None:
        steps, returns, *_ = self.episodes.rows.T
        draw_learning_curve(path, steps, returns, title, self._frames_per_step(), tested["mean"] if tested else None)

    @property
    def higher_is_better(self) -> bool:
        return True

    def score(self, results: dict[str, Any]) -> float | None:
        return (results.get("evaluation") or {}).get("mean")

    def describe(self) -> dict[str, Any]:
        return {
            "environment": self.config["env.id"],
            "algorithm": self.config["algo.name"],
            "outcome": self.outcome() or "stopped",
            "minutes": round(self.episodes.seconds / 60, 2),
            "processor_minutes": round(self.episodes.processor_seconds / 60, 2),
            "steps": self.done,
            "frames_per_step": self._frames_per_step(),
            **describe_episodes(self.episodes.rows),
        }


def _bytes(space: spaces.Space) -> float:
    """What one observation takes."""
    if isinstance(space, spaces.Dict):
        return sum(map(_bytes, space.values()))
    return float(np.prod(space.shape or (1,))) * min(np.dtype(space.dtype).itemsize, FLOAT)


def _spelt_out(core: str, options: dict[str, Any]) -> dict[str, Any]:
    """A core's options, the default ones included: a checkpoint may be older than some of them."""
    return {"core": core} | {name: option.default for name, option in core_options(core).items()} | options
