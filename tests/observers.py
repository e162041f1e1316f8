"""What tests of A3C, of IMPALA and of both on Ray look at a training with."""

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

CARTPOLE = "relmem/MaskedCartPole-v0"


def parameters(model):
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


class Observer(BaseCallback):
    """Notes what callbacks are shown."""

    def __init__(self):
        super().__init__()
        self.steps, self.shapes, self.episodes = [], set(), 0

    def _on_step(self):
        self.steps.append(self.num_timesteps)
        self.shapes.add((np.shape(self.locals["rewards"]), np.shape(self.locals["dones"]), len(self.locals["infos"])))
        self.episodes += sum("episode" in info for info in self.locals["infos"])
        assert [("episode" in info) for info in self.locals["infos"]] == self.locals["dones"].tolist()
        return True


class StopWhenSolved(BaseCallback):
    """Ends the run once the mean return of the last episodes has been high enough, and whatever else is awaited."""

    def __init__(self, threshold, also=lambda: True):
        super().__init__()
        self.threshold, self.also, self.solved = threshold, also, False

    def _on_step(self):
        episodes = self.model.ep_info_buffer
        full = len(episodes) == episodes.maxlen
        self.solved |= full and np.mean([info["r"] for info in episodes]) > self.threshold
        return not (self.solved and self.also())
