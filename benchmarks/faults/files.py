"""Damage to files: whatever was saved is whole, or refused before anything of it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.table import Tally
from relmem.agents import MemoryPPO, SequenceModel, SupervisedTrainer, load
from relmem.envs import make_vec_env
from relmem.tasks import make_task

Loader = Callable[[Path], Any]


def saved(folder: Path) -> dict[Path, Loader]:
    """An agent and a model of a task, and what loads each."""
    env = make_vec_env("relmem/MaskedCartPole-v0", 2, seed=0)
    kwargs = {"core": "gru", "core_kwargs": {"hidden_size": 8}}
    MemoryPPO("MemoryPolicy", env, n_steps=16, seed=0, policy_kwargs=kwargs).learn(32).save(folder / "model.zip")
    trainer = SupervisedTrainer(make_task("copy"), "gru", {"hidden_size": 8}, batch_size=4, eval_size=4)
    trainer.learn(1)
    trainer.save(folder / "model.pt")
    return {folder / "model.zip": load, folder / "model.pt": SequenceModel.load}


def truncations(folder: Path, rng: np.random.Generator, quick: bool) -> Tally:
    """Each file cut off at every kilobyte."""
    tally = Tally("truncations")
    for path, loader in saved(folder).items():
        whole = path.read_bytes()
        ends = range(0, len(whole), 1024)
        for end in ends[:: max(1, len(ends) // 10)] if quick else ends:
            _refused(path, whole[:end], loader, tally)
        path.write_bytes(whole)
        loader(path)
    return tally


def flips(folder: Path, rng: np.random.Generator, quick: bool) -> Tally:
    """Single bits turned over, anywhere."""
    tally = Tally("flips")
    files = saved(folder)
    for path, loader in files.items():
        whole = path.read_bytes()
        for bit in rng.integers(8 * len(whole), size=20 if quick else 600 // len(files)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << int(bit % 8)
            _refused(path, bytes(damaged), loader, tally)
    return tally


def _refused(path: Path, content: bytes, loader: Loader, tally: Tally) -> None:
    """A damaged file is to be refused in one sentence."""
    path.write_bytes(content)
    try:
        loader(path)
    except ValueError as error:
        tally.count("\n" not in str(error), str(error).replace(f"{path.parent}/", ""))
    except Exception as error:
        tally.count(False, f"{type(error).__name__}: {error}")
    else:
        tally.count(False, f"{path.name} was loaded although it was damaged", corrupted=True)
