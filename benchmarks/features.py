"""Feature extractors over Pong's images: what a frame takes in a rollout, and each time it is learned from."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces

from benchmarks.measure import Group, Table, interleave, per_second, stopwatch
from relmem.agents import MemoryActorCriticPolicy

FRAMES = 256
CONTESTANTS = [("nature", 84), ("atari", 84), ("atari", 60), ("small", 84), ("a3c", 84)]  # name, side of the images


def measure(quick: bool, rounds: int) -> Group:
    frames = 8 if quick else FRAMES
    works = {}
    for name, side in CONTESTANTS:
        space = spaces.Box(0, 255, (1, side, side), np.uint8)
        policy = MemoryActorCriticPolicy(space, spaces.Discrete(6), lambda _: 0.0, core="identity", features=name)
        policy.set_precision("auto")
        images = torch.randint(256, (frames, *space.shape), dtype=torch.uint8)
        prepared = policy.prepare(images)

        def rollout(policy: MemoryActorCriticPolicy = policy, images: torch.Tensor = images) -> None:
            with torch.no_grad():
                policy._features(policy.prepare(images))

        def update(policy: MemoryActorCriticPolicy = policy, prepared: torch.Tensor = prepared) -> None:
            policy._features(prepared).sum().backward()

        works[f"{name}, {side}x{side}", "rollout"], works[f"{name}, {side}x{side}", "update"] = (
            stopwatch(work) for work in (rollout, update)
        )
    seconds = interleave({" ".join(key): work for key, work in works.items()}, rounds)
    rates = {key: per_second(frames / 1e3, seconds[" ".join(key)]) for key in works}
    rows = [
        {"features": name, "rollout": rates[name, "rollout"], "update": rates[name, "update"]}
        for name in dict.fromkeys(name for name, _ in works)
    ]
    note = "Thousands of images per second: prepared and read, as in a rollout; read and learned from, as in an update."
    return Group([], [Table("Feature extractors", note, rows)])
