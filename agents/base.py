"""What MemoryPPO and A3C have in common: options, policy, seed."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from ..common.options import require_options
from .finite import require_finite_weights
from .normalization import Normalization, frozen, normalization_of
from .policy import MemoryActorCriticPolicy
from .precision import Precision
from .schedule import as_schedule

# By which files of version 0.1, which do not name their algorithm, are told apart: an argument that only it has.
MARKS = {"bptt_length": "MemoryPPO", "envs_per_worker": "A3C"}
LEFT_TO_SB3 = ("env", "verbose", "tensorboard_log")


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
    :param policy_kwargs: arguments of the policy, such as ``dict(core="stm", core_kwargs={"preset": "default"})``
    """

    policy: MemoryActorCriticPolicy
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MemoryPolicy": MemoryActorCriticPolicy}
    algorithm: str  # saved, for `relmem.agents.load`
    precision: Precision
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

    def predict(  # type: ignore[override]
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
        learns_in = self.get_vec_normalize_env()
        normalization = self.normalization if learns_in is None else normalization_of(learns_in)
        return env if normalization is None or unwrap_vec_normalize(env) is not None else frozen(env, normalization)

    def continued_seed(self) -> int | None:
        """The seed moves on with the steps taken, so that a training that is continued does not repeat its episodes."""
        if self.seed is None or self.num_timesteps == 0:
            return self.seed
        return (self.seed + self.num_timesteps) % 2**31

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        if self.env is None:
            raise ValueError("this model has no environment to learn in: call set_env(env) first")
        return super()._setup_learn(*args, **kwargs)

    def save(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Save the model, as any SB3 algorithm does.

        :raises Diverged: if its weights are not finite, and of no use to anyone
        """
        require_finite_weights(self.policy)
        if (learns_in := self.get_vec_normalize_env()) is not None:
            self.normalization = normalization_of(learns_in)
        super().save(path, *args, **kwargs)

    def set_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Take over saved weights, as ``load`` does.

        :raises ValueError: if they are not finite
        """
        super().set_parameters(*args, **kwargs)
        if not all(parameter.isfinite().all() for parameter in self.policy.parameters()):
            raise ValueError("these weights are not finite: whoever saved them had a training that diverged")

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "buffer", "_state", "_last_obs", "_env_factory"]
