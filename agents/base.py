"""What MemoryPPO, A3C and IMPALA have in common: options, policy, seed, files, exact resumption."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces, get_system_info, update_learning_rate
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from ..common.generators import set_generators
from ..common.options import Count, require_options
from ..common.output import say
from .finite import require_finite_weights
from .guard import UpdateGuard
from .normalization import Normalization, frozen, normalization_of
from .policy import MemoryActorCriticPolicy
from .precision import Precision
from .resume import Moment, pending, set_pending, take_moment
from .saved import DATA, MOMENT, SYSTEM, making, read_agent, write_agent
from .schedule import as_schedule

# By which files of version 0.1, which do not name their algorithm, are told apart: an argument that only it has.
MARKS = {"bptt_length": "MemoryPPO", "envs_per_worker": "A3C"}
LEFT_TO_SB3 = ("env", "verbose", "tensorboard_log")
COUNTERS = (
    *("num_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining"),
    *("ep_info_buffer", "ep_success_buffer"),
)


class MemoryAlgorithm(BaseAlgorithm):
    """An algorithm that trains a ``MemoryActorCriticPolicy``.

    Numbers that may be a schedule are functions of the remaining progress, which goes from 1 to 0, or texts such as
    ``lin_3e-4``: from that number to zero over the training. What is not explained is as in SB3.

    :param policy: ``MemoryActorCriticPolicy`` or its name, "MemoryPolicy"
    :param gamma: discount per step
    :param gae_lambda: decay of generalised advantage estimation
    :param ent_coef: weight of the entropy bonus
    :param clip_reward: learn from rewards clipped to this size; reported returns stay unclipped; null (None): none
    :param precision: of the feature extractor: bf16, fp32, or auto (bf16 for nature, atari, a3c and small where the
        hardware has it). Core, heads and optimizer stay in float32
    :param max_skipped: updates in a row that may be skipped because their loss or gradient is not finite; then the last
        good weights are taken up again at half the learning rate, at most twice; null (None): the first one ends the
        training
    :param policy_kwargs: arguments of the policy, such as ``dict(core="stm", core_kwargs={"preset": "default"})``
    """

    policy: MemoryActorCriticPolicy
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MemoryPolicy": MemoryActorCriticPolicy}
    algorithm: str  # saved, for `relmem.agents.load`
    precision: Precision
    max_skipped: Count | None = None
    guard: UpdateGuard
    saved_at: Moment | None = None  # of what was loaded, where ``take_up`` goes on
    _moment: Moment | None = None  # at the beginning of the rollout or update under way
    _to_take_up: Moment | None = None  # when learning begins
    normalization: Normalization | None = None  # of the environments that it has learned in; saved with it

    def _require_setup(self, kind: type[BaseAlgorithm]) -> None:
        """Check what the algorithm was made of, or loaded with.

        :param kind: the class that declares its options
        :raises ValueError: if there is no environment, another algorithm saved what is loaded, or an option is out of
            range
        """
        if self.algorithm != kind.__name__ or vars(self).keys() >= {*MARKS}:  # what is loaded comes on top
            raise ValueError(f"{kind.__name__} cannot load what another algorithm saved: use relmem.agents.load")
        if getattr(self, "observation_space", None) is None:
            raise ValueError(f"{kind.__name__} needs an environment, of which its policy takes the spaces")
        require_options(kind, {name: value for name, value in vars(self).items() if name not in LEFT_TO_SB3})

    def _set_up_policy(self, **policy_kwargs: Any) -> None:
        """Make schedule and policy, by the seed.

        :raises ValueError: if the policy is one that our algorithms cannot train
        """
        name = type(self).__name__
        if policy_kwargs.get("use_sde"):
            raise ValueError(f"{name} does not draw the noise of use_sde: leave it out of policy_kwargs")
        self.lr_schedule = as_schedule(self.learning_rate)
        self.set_random_seed(self.continued_seed())
        policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule, **policy_kwargs)
        if not isinstance(policy, MemoryActorCriticPolicy):
            raise ValueError(f"{name} needs a MemoryActorCriticPolicy, got {type(policy).__name__}")
        self.policy = policy.to(self.device)
        self.policy.set_precision(self.precision)
        self.guard = UpdateGuard(self.policy, self.max_skipped)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Action for one observation or a batch, and the state to pass with the next one: see the policy's."""
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def normalized(self, env: VecEnv) -> VecEnv:
        """Environments as the model knows them: if it learns under a ``VecNormalize``, or did before it was saved, the
        observations are normalised by its statistics as they are now; else nothing is done to them."""
        normalization = self.normalization_now()
        return env if normalization is None or unwrap_vec_normalize(env) is not None else frozen(env, normalization)

    def normalization_now(self) -> Normalization | None:
        """Of the environments that it learns in or, where it has none, did before it was saved."""
        learns_in = self.get_vec_normalize_env()
        return self.normalization if learns_in is None else normalization_of(learns_in)

    def continued_seed(self) -> int | None:
        """The seed moves on with the steps taken, so that a training that is continued does not repeat its episodes."""
        if self.seed is None or self.num_timesteps == 0:
            return self.seed
        return (self.seed + self.num_timesteps) % 2**31

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        if self.env is None:
            raise ValueError("this model has no environment to learn in: call set_env(env) first")
        result = super()._setup_learn(*args, **kwargs)
        if (moment := self._to_take_up) is not None:
            self._to_take_up = None
            set_pending(self.logger, moment.get("log"))
            set_generators(moment.get("generators"))
        return result

    def _update_learning_rate(self, optimizers: Any) -> None:
        """As SB3 does, at the rate that the guard has left."""
        rate = self.lr_schedule(self._current_progress_remaining) * self.guard.rate
        self.logger.record("train/learning_rate", rate)
        update_learning_rate(optimizers, rate)

    # ---------------------------------------------------------------- exact resumption

    def moment(self) -> Moment:
        """Where the training is, beside policy and optimizer: everything that ``take_up`` needs for the same numbers as
        if it had gone on. Within a rollout or an update that is the place before it."""
        return self._moment or self._take_moment()

    def take_up(self, moment: Moment) -> bool:
        """Go on where another training was, whose policy and optimizer this one has: call it before ``learn``.

        :param moment: what ``moment`` of the other one returned
        :return: whether its environments go on too; if not, new episodes begin
        :raises ValueError: if the environments are others
        """
        vars(self).update(moment.get("counters"))
        self.guard.load_state(moment.get("guard"))
        self._to_take_up = moment
        return self._take_up_place(moment)

    def roll_back(self) -> None:
        """Give up a rollout without its update, or an update that was broken off: policy, optimizer and counters are
        what they were before it. Environments and generators are not: whoever goes on does so with ``take_up``."""
        if self._moment is not None:
            self.guard.give_up()
            vars(self).update(self._moment.get("counters"))

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Within a callback's ``on_rollout_start``: nothing is under way, and what is saved is of one moment."""
        yield

    def _take_moment(self) -> Moment:
        counters = {name: getattr(self, name) for name in COUNTERS}
        episodes = self.ep_info_buffer or ()
        shown = [{key: info[key] for key in ("r", "l", "t") if key in info} for info in episodes]
        counters["ep_info_buffer"] = deque(shown, maxlen=self._stats_window_size)
        log = pending(self.logger) if hasattr(self, "_logger") else [{}, {}, {}]
        return take_moment(*self._place(), counters=counters, guard=self.guard.state(), log=log)

    def _place(self) -> tuple[VecEnv | None, Any]:
        """The environments that are played in, and last observations, starts of episodes and memory; None before the
        first."""
        return None, None

    def _take_up_place(self, moment: Moment) -> bool:
        """Bring the environments to where they were, and say whether they are there."""
        return False

    def save(
        self, path: Any, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None, *_: Any
    ) -> None:
        """Save the model, with the arguments of any SB3 algorithm, as a file that is safe to load (see ``saved``). At
        ``path`` is either what was there before or the whole new file, whatever happens meanwhile.

        :raises Diverged: if its weights are not finite, and of no use to anyone
        """
        require_finite_weights(self.policy)
        self.normalization = self.normalization_now()
        excluded = {*self._excluded_save_params(), *(exclude or ())} - {*(include or ())}
        data = {name: value for name, value in vars(self).items() if name not in excluded}
        write_agent(path, data, self.get_parameters() | {MOMENT: self.moment().parts})

    @classmethod
    def load(
        cls,
        path: Any,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        trusted: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Load a saved model, with the arguments of any SB3 algorithm and ``trusted``.

        :param path: of the file, with or without ``.zip``, or a stream
        :param custom_objects: attributes to be taken instead of those of the file
        :param trusted: as in ``relmem.agents.load``
        :param kwargs: attributes to change
        :raises ValueError: if the file is damaged, of another algorithm, of other spaces than ``env``, or to be loaded
            only where it is trusted
        """
        parts = read_agent(path, trusted, custom_objects)
        data, system, moment = parts.pop(DATA), parts.pop(SYSTEM, {}), parts.pop(MOMENT, None)
        if print_system_info:
            say("\n".join(f"{name}: {value}" for name, value in system.items()))
            get_system_info()
        env = None if env is None else cls._wrap_env(env, data.get("verbose", 0))
        with making(path, trusted):
            return cls._made(data, parts, moment, env, device, kwargs)

    @classmethod
    def _made(
        cls, data: dict[str, Any], parts: dict[str, Any], moment: dict[str, Any] | None, env: VecEnv | None,
        device: torch.device | str, changes: dict[str, Any],
    ) -> Self:  # fmt: skip
        """The model that a file describes."""
        policy_kwargs = {name: value for name, value in data.get("policy_kwargs", {}).items() if name != "device"}
        if changes.get("policy_kwargs", policy_kwargs) != policy_kwargs:
            raise ValueError(f"the model was saved with policy_kwargs {policy_kwargs}, which cannot be changed")
        if env is not None:
            check_for_correct_spaces(env, data["observation_space"], data["action_space"])
            data["n_envs"] = env.num_envs
        model = cls(data["policy_class"], env, device=device, _init_setup_model=False)  # type: ignore[call-arg]
        vars(model).update(data | {"policy_kwargs": policy_kwargs} | changes)
        model._setup_model()
        model.set_parameters(parts, exact_match=True, device=device)
        if not isinstance(moment, dict | None):
            raise ValueError("what this file says of its training's moment is something else")
        model.saved_at = None if moment is None else Moment(moment)
        return model

    def set_parameters(
        self, load_path_or_dict: Any, exact_match: bool = True, device: torch.device | str = "auto"
    ) -> None:
        """Take over saved weights, as ``load`` does.

        :raises ValueError: if they are not finite, or the file is damaged or would run code
        """
        if not isinstance(load_path_or_dict, dict):
            parts = read_agent(load_path_or_dict)
            with making(load_path_or_dict, trusted=False):
                states = {name: part for name, part in parts.items() if name not in (DATA, SYSTEM, MOMENT)}
                return self.set_parameters(states, exact_match, device)
        super().set_parameters(load_path_or_dict, exact_match, device)
        if not all(parameter.isfinite().all() for parameter in self.policy.parameters()):
            raise ValueError("these weights are not finite: whoever saved them had a training that diverged")

    def _excluded_save_params(self) -> list[str]:
        of_now = ("buffer", "guard", "saved_at", "_state", "_last_obs", "lr_schedule", "_env_factory")
        of_learning = ("_moment", "_to_take_up", "_learning", "_in_hand", "_places")
        return [*super()._excluded_save_params(), *of_now, *of_learning]
