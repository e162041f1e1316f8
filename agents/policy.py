"""The recurrent actor-critic policy: features -> memory core -> heads.

One core serves actor and critic, and both losses reach it. The same weights work in three places: relmem's PPO and
A3C, which carry the core's own structured state, and stock ``sb3_contrib.RecurrentPPO``, which knows only the pair
(h, c) of an LSTM: there the packed state travels cut into two halves.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.utils import get_device
from torch import Tensor, nn

from ..common.checks import require_choice, unknown
from ..common.options import Count, Import, require_options
from ..envs.last import OBSERVATION
from .cores import State, make_core, registered_cores
from .cores.weights import require_same_tensors
from .features import ConvFeatures, FeaturesName, convolutions, features_class
from .finite import Diverged
from .masks import masked_distribution, require_masks
from .precision import Precision, autocast_dtype
from .saved import DATA, NotAgent, making, read_agent, write_agent
from .spaces import map_obs, require_spaces

Halves = tuple[Tensor, ...]
"""A packed state [n, state_size], padded to even and cut in two: each [1, n, state_size / 2]."""


class MemoryActorCriticPolicy(RecurrentActorCriticPolicy):
    """Actor-critic policy around any registered memory core. What is not explained here is as in SB3's
    ``ActorCriticPolicy``.

    :param core: name of a registered memory core, or module:name of one that the import of a module registers
    :param core_kwargs: the core's options; null (None): its defaults
    :param features: feature extractor, or module:name of a class of your own, derived from SB3's BaseFeaturesExtractor;
        null (None): nature for images, dict for dictionaries, mlp for the rest
    :param bypass: whether the heads read the features too, beside the core's output: what can be played without memory
        then need not be learned through it
    :param net_arch: sizes of hidden layers between core and heads, also as {pi: [64], vf: [64]}; null (None): none
    :param features_extractor_class: an extractor class of your own, instead of ``features``
    :param options: others of ``ActorCriticPolicy``, such as ``activation_fn``
    :raises ValueError: if a space is one that no policy can have, or the core, one of its options or the features are
        unknown or out of range
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        core: str = "lstm",
        core_kwargs: dict[str, Any] | None = None,
        features: FeaturesName | Import | None = None,
        bypass: bool = False,
        net_arch: list[Count] | dict[str, list[Count]] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        require_spaces(observation_space, action_space)
        own_options = {
            "core": core,
            "core_kwargs": core_kwargs,
            "features": features,
            "bypass": bypass,
            "net_arch": net_arch,
        }
        require_options(MemoryActorCriticPolicy, own_options)
        for part in net_arch if isinstance(net_arch, dict) else ():
            require_choice("part of net_arch", part, ("pi", "vf"))
        if ":" not in core and core not in registered_cores():  # as where a model is loaded in a new process
            hint = "(A core of your own is known once its module is imported; 'module:core' imports it.)"
            raise ValueError(f"{unknown('core', core, registered_cores())} {hint}")
        self.core_name = core
        self.core_kwargs = core_kwargs or {}
        self.features_name = features
        self.bypass = bypass
        self.features_dtype: torch.dtype | None = None  # see `set_precision`
        self.place = 0, 1  # which of so many processes this is, each with as many environments; see `act`
        if optimizer_class is torch.optim.Adam and optimizer_kwargs is None:
            optimizer_kwargs = {"eps": 1e-5, "fused": True}
        # Past RecurrentActorCriticPolicy.__init__, which would build two LSTMs.
        ActorCriticPolicy.__init__(
            self,
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch or [],
            features_extractor_class=features_extractor_class or features_class(features, observation_space),
            share_features_extractor=True,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            **options,
        )

    def _build_mlp_extractor(self) -> None:
        """Build the core and the hidden layers of the heads. Called by the parent class, which then adds the heads
        and the optimizer."""
        self.core = make_core(self.core_name, int(self.features_dim), **self.core_kwargs)  # SB3 may count in NumPy
        self.mlp_extractor = MlpExtractor(
            self.core.output_size + (int(self.features_dim) if self.bypass else 0),
            net_arch=self.net_arch,
            activation_fn=self.activation_fn,
            device=self.device,
        )
        # What stock RecurrentPPO asks an LSTM about: the shape of the two arrays to keep the state in.
        half = max(1, (self.core.state_size + 1) // 2)
        lstm: Any = SimpleNamespace(num_layers=1, hidden_size=half, input_size=self.features_dim)
        self.lstm_actor = lstm
        self.lstm_hidden_state_shape = (1, 1, half)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {
            "core": self.core_name,
            "core_kwargs": self.core_kwargs,
            "features": self.features_name,
            "bypass": self.bypass,
        }
        return super()._get_constructor_parameters() | own

    def save(self, path: Any) -> None:
        """Save the policy by itself, as a file that is safe to load (see ``saved``)."""
        arguments = {key: value for key, value in self._get_constructor_parameters().items() if key != "lr_schedule"}
        write_agent(path, {"policy_kwargs": arguments}, {"policy": self.state_dict()})

    @classmethod
    def load(cls, path: Any, device: torch.device | str = "auto", trusted: bool = False) -> Self:
        """Load a policy that ``save`` wrote.

        :param trusted: as in ``relmem.agents.load``
        :raises ValueError: if the file is damaged, something else, or to be loaded only where it is trusted
        """
        try:
            parts = read_agent(path, trusted)
        except NotAgent:
            if not trusted:
                raise
            return super().load(path, device)  # SB3 saved it, or version 0.1
        if "policy" not in parts:
            raise ValueError(f"'{path}' is not a saved policy")
        with making(path, trusted):
            policy = cls(**parts[DATA]["policy_kwargs"], lr_schedule=lambda _: 0.0)
            policy.load_state_dict(parts["policy"])
        return policy.to(get_device(device))

    @property
    def device(self) -> torch.device:
        """Where the policy computes. (SB3 goes through its parameters to find out, at every step.)"""
        return self.core._like.device

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take over weights.

        :raises ValueError: if they are of another configuration, naming the first tensor that differs
        """
        if strict:
            require_same_tensors(self, state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def set_precision(self, precision: Precision) -> None:
        """Choose what features are computed in. Trainers do; a saved policy does not keep it.

        :param precision: fp32, bf16, or auto: bf16 for nature, atari, a3c and small where the hardware multiplies it
            natively. Other observations would lose the digits after their third, and win no time
        """
        exact = precision == "auto" and convolutions(self.features_extractor) is None
        self.features_dtype = None if exact else autocast_dtype(precision, self.device)

    # ---------------------------------------------------------------- structured states: relmem's PPO and A3C

    def prepare(self, obs: PyTorchObs) -> PyTorchObs:
        """All that is done to observations [B, ...] without weights. Trainers do it once for each observation, and give
        the other methods what it returns; these also take observations as they are.

        Images are standardised, in the precision and memory layout of the convolutions; others stay as they are.
        """
        stack = convolutions(self.features_extractor)
        if stack is None:
            return obs
        if isinstance(obs, dict):
            return obs | {OBSERVATION: self._prepare(stack, obs[OBSERVATION])}
        return self._prepare(stack, obs)

    def _prepare(self, stack: ConvFeatures, images: Tensor) -> Tensor:
        space = stack.observation_space
        if images.shape[1:] != space.shape:  # prepared already
            return images
        if images.dtype != torch.uint8:  # bytes need no scaling to [0, 1] before
            images = preprocess_obs(images, space, self.normalize_images)  # type: ignore[assignment]
        with self._precision():
            return stack.prepare(images)

    def initial_state(self, n_envs: int) -> State:
        """The core's state before the first observation, for ``n_envs`` environments."""
        return self.core.initial_state(n_envs)

    def act(
        self,
        obs: PyTorchObs,
        state: State,
        starts: Tensor,
        deterministic: bool = False,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """Choose one action per environment.

        :param obs: observations [B, ...]
        :param state: state of the core
        :param starts: [B], true where the observation is the first of an episode
        :param deterministic: whether to take the most probable action instead of a sampled one
        :param action_masks: [B, M], true where a choice is allowed (see ``relmem.agents.masks``); None: all are
        :return: actions [B, ...], values [B], log-probabilities [B], next state
        """
        latent, state = self._remember(obs, state, starts.unsqueeze(0))  # [B, O]
        rank, count = self.place
        own = slice(rank * len(latent), (rank + 1) * len(latent))
        if count > 1:  # the others' actions are drawn too, so that all processes go on with the same numbers
            latent = nn.functional.pad(latent, (0, 0, own.start, (count - 1 - rank) * len(latent)))
            if action_masks is not None:
                everything = action_masks.new_ones(len(latent), action_masks.shape[1])
                everything[own] = action_masks
                action_masks = everything
        distribution = self._distribution(latent, action_masks)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions[own], self._values(latent)[own], distribution.log_prob(actions)[own], state

    def outputs(self, obs: PyTorchObs, state: State, starts: Tensor) -> tuple[Tensor, Tensor, State]:
        """What the heads compute of one step, as ``act`` takes it: without a choice among actions, for those who export
        the policy or look at it.

        :return: logits of actions, of continuous ones their means [B, A], values [B], next state
        """
        latent, state = self._remember(obs, state, starts.unsqueeze(0))  # [B, O]
        return self.action_net(self.mlp_extractor.forward_actor(latent)), self._values(latent), state

    def evaluate_sequence(
        self, obs: PyTorchObs, actions: Tensor, state: State, starts: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None, State]:
        """Evaluate the actions of whole sequences, with gradients through time.

        :param obs: observations [T, B, ...]
        :param actions: actions taken [T, B, ...]
        :param state: state of the core before the first step
        :param starts: [T, B], true where an observation is the first of an episode
        :param action_masks: [T, B, M], true where a choice was allowed; None: all were
        :return: values [T, B], log-probabilities [T, B], entropies [T, B] (None where the distribution has no
            closed form), state after the last step
        """
        latent, state = self._remember(map_obs(lambda o: o.flatten(0, 1), obs), state, starts)  # [T * B, O]
        distribution = self._distribution(latent, None if action_masks is None else action_masks.flatten(0, 1))
        log_prob = distribution.log_prob(actions.flatten(0, 1))
        entropy = distribution.entropy()
        shape = starts.shape
        values = self._values(latent).view(shape)
        return values, log_prob.view(shape), None if entropy is None else entropy.view(shape), state

    def value(self, obs: PyTorchObs, state: State, starts: Tensor) -> Tensor:
        """Values [B] of observations [B, ...]."""
        return self._values(self._remember(obs, state, starts.unsqueeze(0))[0])

    @torch.no_grad()
    def memory_statistics(self, obs: PyTorchObs, state: State, starts: Tensor) -> dict[str, Tensor]:
        """What a log shows of the memory, averaged over environments: the norm of each leaf of the state, and the
        mean of each gate at the coming observations [B, ...]. It leaves the policy as it was, statistics of BatchNorm
        included."""
        training = self.training
        self.set_training_mode(False)
        norms = {f"{name}_norm": leaf.flatten(1).norm(dim=1).mean() for name, leaf in state._asdict().items()}
        gates = self.core.gates(self._features(obs), self.core.reset(state, starts))
        self.set_training_mode(training)
        return norms | {f"{name}_mean": gate.mean() for name, gate in gates.items()}

    def _remember(self, obs: PyTorchObs, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Features and core: obs [T * B, ...], starts [T, B] -> (what the heads read [T * B, D], state)."""
        features = self._features(obs)  # [T * B, F]
        outputs, state = self.core(features.unflatten(0, starts.shape), state, starts)
        return self._read_by_heads(outputs.flatten(0, 1), features), state

    def _read_by_heads(self, outputs: Tensor, features: Tensor) -> Tensor:
        """Outputs of the core [..., O], features [..., F] -> [..., D]."""
        return torch.cat([outputs, features], dim=-1) if self.bypass else outputs

    def _precision(self) -> torch.autocast:
        # No cache of cast weights: each is used once, and the parts of a minibatch would share its graph.
        return torch.autocast(
            self.device.type, self.features_dtype, enabled=self.features_dtype is not None, cache_enabled=False
        )

    def _features(self, obs: PyTorchObs) -> Tensor:
        obs = self.prepare(obs)
        with self._precision():
            if convolutions(self.features_extractor) is not None:
                return self.features_extractor(obs).float()
            return self.extract_features(obs).float()  # type: ignore[union-attr]

    def _distribution(self, latent: Tensor, action_masks: Tensor | None = None) -> Distribution:
        parameters = self.mlp_extractor.forward_actor(latent)
        try:
            if action_masks is not None:
                return masked_distribution(self.action_space, self.action_net(parameters), action_masks)
            return self._get_action_dist_from_latent(parameters)
        except ValueError as error:  # torch's, whose distributions want finite parameters
            raise Diverged(
                "the policy computes actions that are not finite: its weights, its memory or the observations are not, "
                "or have grown too large; a smaller learning_rate or max_grad_norm may help"
            ) from error

    def _values(self, latent: Tensor) -> Tensor:
        return self.value_net(self.mlp_extractor.forward_critic(latent)).squeeze(-1)

    # ---------------------------------------------------------------- halved states: stock RecurrentPPO, predict

    def to_halves(self, state: State) -> Halves:
        """Pack a state into the (h, c) pair that SB3's recurrent algorithms carry."""
        packed = self.core.pack(state)
        first, second = nn.functional.pad(packed, (0, 2 * self.lstm_actor.hidden_size - packed.shape[1])).chunk(2, 1)
        return first.unsqueeze(0), second.unsqueeze(0)

    def from_halves(self, halves: Halves) -> State:
        """The state whose ``to_halves`` is ``halves``."""
        packed = torch.cat([half.squeeze(0) for half in halves], dim=1)
        return self.core.unpack(packed[:, : self.core.state_size])

    def _process_sequence(  # type: ignore[override]
        self, features: Tensor, lstm_states: Halves, episode_starts: Tensor, lstm: Any = None
    ) -> tuple[Tensor, Halves]:
        """Run the core over stock minibatches, which are sequence first: features [B * T, F], starts [B * T]."""
        n_sequences = lstm_states[0].shape[1]
        x = features.unflatten(0, (n_sequences, -1)).transpose(0, 1)  # [T, B, F]
        starts = episode_starts.view(n_sequences, -1).transpose(0, 1).bool()  # [T, B]
        outputs, state = self.core(x, self.from_halves(lstm_states), starts)
        return self._read_by_heads(outputs.transpose(0, 1).flatten(0, 1), features), self.to_halves(state)  # [B * T, D]

    def forward(  # type: ignore[override]
        self, obs: PyTorchObs, lstm_states: RNNStates, episode_starts: Tensor, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, RNNStates]:
        """As in the parent class, but actor and critic share one core, whose state is ``lstm_states.pi``."""
        latent, halves = self._process_sequence(self._features(obs), lstm_states.pi, episode_starts)
        distribution = self._distribution(latent)
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob = distribution.log_prob(actions)
        actions = actions.reshape((-1, *self.action_space.shape))  # type: ignore[misc]
        return actions, self._values(latent).unsqueeze(-1), log_prob, RNNStates(halves, halves)

    def evaluate_actions(  # type: ignore[override]
        self, obs: PyTorchObs, actions: Tensor, lstm_states: RNNStates, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As in the parent class, but the gradient of the critic reaches the core too."""
        latent, _ = self._process_sequence(self._features(obs), lstm_states.pi, episode_starts)
        distribution = self._distribution(latent)
        if isinstance(self.action_space, spaces.MultiBinary):
            actions = actions.float()  # a stock buffer stores them as bytes, of which torch takes no log-probability
        return self._values(latent).unsqueeze(-1), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(  # type: ignore[override]
        self, obs: PyTorchObs, lstm_states: Halves, episode_starts: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Distribution, Halves]:
        """The action distribution and the next state."""
        latent, halves = self._process_sequence(self._features(obs), lstm_states, episode_starts)
        return self._distribution(latent, action_masks), halves

    def predict_values(self, obs: PyTorchObs, lstm_states: Halves, episode_starts: Tensor) -> Tensor:  # type: ignore[override]
        """Values [B, 1]."""
        latent, _ = self._process_sequence(self._features(obs), lstm_states, episode_starts)
        return self._values(latent).unsqueeze(-1)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Action for one observation or a batch, and the state to pass with the next one.

        :param state: what the last call returned; None: episodes begin here
        :param episode_start: [n], true where an observation is the first of its episode
        :param deterministic: the most probable action instead of a sampled one
        :param action_masks: [n, M], true where a choice is allowed, as an environment's ``action_masks()`` says (see
            ``relmem.agents.masks``); None: all are
        :raises ValueError: if the state is of another number of environments or another core, or ``episode_start`` of
            another number, or masks have the wrong shape or allow nothing
        """
        self.set_training_mode(False)
        tensors, batched = self.obs_to_tensor(observation)
        n_envs = len(next(iter(tensors.values())) if isinstance(tensors, dict) else tensors)
        expected = (1, n_envs, self.lstm_actor.hidden_size)
        if state is None:  # these zeros give way to the initial state
            state, episode_start = (np.zeros(expected), np.zeros(expected)), np.ones(n_envs, dtype=bool)
        else:
            if len(state) != 2 or any(np.shape(half) != expected for half in state):
                raise ValueError(
                    f"the state to predict from must be two arrays of shape {expected}, as returned by the last call "
                    f"for {n_envs} environments, got {[np.shape(half) for half in state]}"
                )
            if episode_start is not None and np.size(episode_start) != n_envs:
                raise ValueError(
                    f"episode_start must have one entry for each of {n_envs} environments, got the shape "
                    f"{np.shape(episode_start)}"
                )
        masks = None if action_masks is None else require_masks(action_masks, self.action_space, n_envs)
        starts = np.zeros(n_envs, dtype=bool) if episode_start is None else np.reshape(episode_start, n_envs)
        with torch.no_grad():
            halves = tuple(torch.as_tensor(half, dtype=torch.float32, device=self.device) for half in state)
            distribution, halves = self.get_distribution(
                tensors,
                halves,
                torch.as_tensor(starts, dtype=torch.bool, device=self.device),
                None if masks is None else torch.as_tensor(masks, device=self.device),
            )
            drawn = distribution.get_actions(deterministic=deterministic)
        space = self.action_space
        actions = drawn.cpu().numpy().reshape(-1, *(space.shape or ()))
        if isinstance(space, spaces.Box):
            actions = self.unscale_action(actions) if self.squash_output else np.clip(actions, space.low, space.high)
        return actions if batched else actions.squeeze(axis=0), tuple(half.cpu().numpy() for half in halves)
