"""PPO in several processes, as ``torchrun`` starts them: each has a part of the environments and of each minibatch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor, distributed

from .buffer import SequenceBuffer, minibatch_shape
from .collector import collect, threads_of_rollout
from .finite import Diverged
from .messages import PlayedStep, played
from .ppo import MemoryPPO
from .ppo_loss import Loss
from .resume import Moment, take_moment
from .spaces import map_obs

T = TypeVar("T")


class Place(NamedTuple):
    """Which of the processes of a training this is."""

    rank: int
    size: int  # how many there are
    local_rank: int  # among those of this machine


def place_of_process() -> Place:
    """What ``torchrun`` has told this process; without it, the only one."""
    if not distributed.is_torchelastic_launched():
        return Place(0, 1, 0)
    return Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


def join(place: Place) -> None:
    """Meet the other processes, unless that is done."""
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank)
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


class ParallelPPO(MemoryPPO):
    """``MemoryPPO`` whose environments are divided among the processes of PyTorch's default group, in equal parts.

    All processes do the same with the same numbers, but for two things: each plays its own environments, and of each
    minibatch each computes the losses and gradients of one part. The rollout is gathered, and so is known to all; the
    gradients of the parts are added up. Actions are drawn as one process would draw those of all environments. So the
    training is that of one process with all environments, to the rounding of products of other shapes.

    Callbacks run after a rollout, once for each of its steps, with what all environments gave. What a callback of one
    process changes is not known to the others. ``n_envs`` counts the environments of all processes. What it saves is a
    ``MemoryPPO``.
    """

    def _setup_model(self) -> None:
        self._own_buffer: SequenceBuffer | None = None
        self._places: list[dict[str, Any]] | None = None  # to be taken up by each process
        if self.env is not None:
            self.n_envs = self.env.num_envs * distributed.get_world_size()
        super()._setup_model()
        _, sequences = minibatch_shape(self.n_steps, self.n_envs, self.buffer.length, self.batch_size)
        if sequences < distributed.get_world_size():
            raise ValueError(
                f"minibatches of {sequences} sequence(s) cannot be divided among {distributed.get_world_size()} "
                "processes: choose a larger batch_size, or a smaller bptt_length"
            )
        self._take_place()

    def _take_place(self) -> None:
        """Prepare for the part of the environments that this process has."""
        rank, count = distributed.get_rank(), distributed.get_world_size()
        self.policy.place = rank, count
        if self.env is None:
            return
        if unwrap_vec_normalize(self.env) is not None:
            raise ValueError("VecNormalize does not work in several processes: each would have statistics of its own")
        own = self.env.num_envs
        self._own_buffer = SequenceBuffer(self.n_steps, own, self.buffer.length, self.policy.core, self.device)
        if (seed := self.continued_seed()) is not None:
            self.env.seed(seed + rank * own)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """As in ``MemoryPPO``, with the environments of this process."""
        n_envs = self.n_envs
        self.n_envs = n_envs // distributed.get_world_size()
        try:
            super().set_env(env, force_reset)
        finally:
            self.n_envs = n_envs
        self._take_place()

    def synchronise(self) -> None:
        """Let all processes go on from what the first has learned, and where each was when that was saved."""
        learned = self.policy.state_dict(), self.policy.optimizer.state_dict()
        counts = self.num_timesteps, self._n_updates
        known = self._first_ones((counts, self.guard.state(), learned, self._places))
        (self.num_timesteps, self._n_updates), guard, (weights, optimizer), places = known
        self.guard.load_state(guard)
        self.policy.load_state_dict(weights)
        self.policy.optimizer.load_state_dict(optimizer)
        if places is not None and distributed.get_rank():
            super()._take_up_place(Moment(places[distributed.get_rank()]))
        self._places = None

    def _share_generators(self) -> None:
        """Let all processes draw the same numbers from now on, whatever a callback of one has drawn."""
        on_gpu = self.device.type == "cuda"
        gpu = torch.cuda.get_rng_state(self.device) if on_gpu else None
        cpu, gpu = self._first_ones((torch.get_rng_state(), gpu))
        torch.set_rng_state(cpu)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu, self.device)

    def learn(self, *args: Any, **kwargs: Any) -> ParallelPPO:
        """Train, all processes together: each has to call this, with the same steps."""
        self.synchronise()
        super().learn(*args, **kwargs)
        if self._moment is None:  # or else what was broken off is to be repeated
            self._moment = self._moment_of_all()
            self.guard.begin()
        return self

    def _moment_of_all(self) -> Moment:
        """Where all processes are. What the first one saves is of the last moment that all of them took down together:
        before a rollout, or at the end."""
        moment, own = self._take_moment(), take_moment(*super()._place()).parts
        moment.parts["places"] = gathered_objects({name: own[name] for name in ("place", "env") if name in own})
        return moment

    def _place(self) -> tuple[None, None]:
        """No process knows by itself where the environments of the others are."""
        return None, None

    def _take_up_place(self, moment: Moment) -> bool:
        """Bring the first process's environments to where they were; ``synchronise`` lets the others follow."""
        places = moment.parts.get("places")
        if places is None or len(places) != distributed.get_world_size():
            return False
        self._places = moment.get("places")
        return super()._take_up_place(Moment(self._places[0]))

    # ---------------------------------------------------------------- collection

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: SequenceBuffer, n_rollout_steps: int
    ) -> bool:
        """Play this process's part of a rollout, and gather all of it in the buffer.

        :return: False if a callback of the first process asked to stop
        :raises FloatingPointError: in all processes, if an environment of one gives numbers that are not finite
        :raises Diverged: likewise, if what the policy computes is not finite, and going back does not help
        :raises ValueError: likewise, if an action mask has the wrong shape or allows nothing
        """
        assert self._own_buffer is not None and self._last_obs is not None and self._last_episode_starts is not None
        self._share_generators()
        if self._state is None or len(self._state[0]) != env.num_envs:
            with torch.no_grad():
                self._state = self.policy.initial_state(env.num_envs)
        self._moment = self._moment_of_all()
        self.guard.begin()
        callback.on_rollout_start()
        self._share_generators()
        place = self._last_obs, self._last_episode_starts, self._state
        steps: list[PlayedStep] = []
        failure: FloatingPointError | ValueError | None = None
        try:
            with threads_of_rollout(env.num_envs):
                for step in collect(self.policy, env, self._own_buffer, *place, self.gamma, self.clip_reward):
                    self._last_obs, self._last_episode_starts, self._state = step.new_obs, step.dones, step.next_state
                    steps.append(played(step))
        except (FloatingPointError, ValueError) as error:  # ValueError: of an action mask
            failure = error
        found = gathered_objects((steps, failure))
        for rank, (_, failed) in enumerate(found):
            if isinstance(failed, Diverged):  # once more, with the weights that all go back to
                self.guard.go_back(f"process {rank}: {failed}")
                self._state = None
                return self.collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
            if failed is not None:
                raise type(failed)(f"process {rank}: {failed}")
        begun_at = self.num_timesteps
        go_on = self._show(beside_each_other([part for part, _ in found]), callback)
        if not self._first_ones(go_on):
            self.num_timesteps = begun_at
            return False
        gather(self._own_buffer, rollout_buffer)
        rollout_buffer.compute_advantages(self.gamma, self.gae_lambda)
        callback.update_locals(locals() | {"n_steps": n_rollout_steps})
        callback.on_rollout_end()
        return True

    def _show(self, steps: Sequence[PlayedStep], callback: BaseCallback) -> bool:
        """Count the steps of all environments, and show them to callbacks.

        :return: False if a callback asks to stop
        """
        for n_steps, (rewards, dones, infos) in enumerate(steps):
            self.num_timesteps += len(rewards)
            callback.update_locals({"rewards": rewards, "dones": dones, "infos": infos, "n_steps": n_steps})
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
        return True

    def _first_ones(self, value: T) -> T:
        """What the first process has."""
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    # ---------------------------------------------------------------- update

    def _own_part(self, columns: Tensor) -> Tensor:
        return columns.tensor_split(distributed.get_world_size(), dim=-1)[distributed.get_rank()]

    def _whole(self, part: Loss) -> Loss:
        summed = torch.stack([value.detach() for value in part])
        distributed.all_reduce(summed)
        return Loss(*summed)

    def _add_gradients(self) -> None:
        # One process may have a gradient of what others have none of, as of an initial state, where an episode begins.
        # What nobody has one of is left without, which Adam does not take for zero.
        parameters = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        known = torch.tensor([parameter.grad is not None for parameter in parameters], device=self.device)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        joined = torch.cat([known.float(), *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(joined)
        known, *summed = joined.split([len(parameters), *(p.numel() for p in parameters)])
        for parameter, of_any, gradient in zip(parameters, known.tolist(), summed, strict=True):
            parameter.grad = gradient.view_as(parameter) if of_any else None

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_own_buffer"]


def gather(own: SequenceBuffer, whole: SequenceBuffer) -> None:
    """Fill a buffer with those of all processes: environments beside each other, in the order of the processes."""
    chunks = own.n_steps // own.length

    def beside(part: Tensor, dim: int = 1) -> Tensor:
        """[..., C * N, ...] of each process -> [..., C * N of all, ...], with C * N at ``dim``."""
        parts = gathered(part.unflatten(dim, (chunks, own.n_envs)))
        return torch.cat(parts, dim=dim + 1).flatten(dim, dim + 1)

    whole.obs = map_obs(beside, own.obs)
    for name in ("actions", "rewards", "values", "log_probs", "starts"):
        setattr(whole, name, beside(getattr(own, name)))
    whole.action_masks = None if own.action_masks is None else beside(own.action_masks)
    whole.state = type(own.state)(*(beside(leaf, dim=0) for leaf in own.state))
    last_values, last_starts = own._after
    whole.end_rollout(torch.cat(gathered(last_values)), torch.cat(gathered(last_starts)))


def gathered(tensor: Tensor) -> list[Tensor]:
    """The tensors of all processes, which are of one shape."""
    mine = tensor.contiguous().flatten().view(torch.uint8)  # gloo does not know every type
    parts = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, mine)
    return [part.view(tensor.dtype).view(tensor.shape) for part in parts]


def gathered_objects(value: T) -> list[T]:
    """What all processes have."""
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def beside_each_other(parts: Sequence[Sequence[PlayedStep]]) -> list[PlayedStep]:
    """The steps of all processes, environments beside each other."""
    return [
        (np.concatenate(rewards), np.concatenate(dones), [info for part in infos for info in part])
        for rewards, dones, infos in (zip(*step, strict=True) for step in zip(*parts, strict=True))
    ]
