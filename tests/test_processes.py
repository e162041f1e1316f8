"""PPO in two processes, as torchrun starts them, is PPO in one with all their environments."""

import csv
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from relmem.agents import Diverged, MemoryPPO, load, ppo
from relmem.agents.processes import ParallelPPO, join, place_of_process
from relmem.cli import main
from relmem.envs import make_vec_env
from relmem.experiment.folder import RunFolder

ENVS = 16  # eight for each: fewer rows are multiplied by another routine, which rounds otherwise
OPTIONS = {
    "n_steps": 32,
    "bptt_length": 16,
    "batch_size": 16 * ENVS // 2,
    "n_epochs": 2,
    "learning_rate": 3e-3,
    "target_kl": 0.02,  # it ends some of the passes
    "seed": 3,
}
CORES = {
    "lstm": {"hidden_size": 16},
    "stm": {"queries": 2, "item_size": 8, "relation_size": 4},
    "rmc": {"slots": 2, "heads": 2, "head_size": 4},
}
SKIPPED, INITIAL, RESUMED = "skipped", "initial", "resumed"  # other files


def torchrun(*command):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*launch, *map(str, command)], check=True, env=environment)


class Episodes(BaseCallback):
    def __init__(self):
        super().__init__()
        self.ended = []

    def _on_step(self):
        ended = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        self.ended += [(self.num_timesteps, reward) for reward in ended]
        return True


def trained(core):
    """What a training comes to, in this process or in one of several."""
    place, episodes = place_of_process(), Episodes()
    if place.size > 1:
        join(place)
    env = make_vec_env("relmem/MaskedCartPole-v0", ENVS // place.size)
    kind = MemoryPPO if place.size == 1 else ParallelPPO
    model = kind("MemoryPolicy", env, policy_kwargs={"core": core, "core_kwargs": CORES[core]}, **OPTIONS)
    model.learn(3 * 32 * ENVS, callback=episodes)
    return {
        "weights": torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach(),
        "episodes": episodes.ended,
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "next number": torch.rand(1),
        "clip_fraction": model.logger.name_to_value["train/clip_fraction"],
        "approx_kl": model.logger.name_to_value["train/approx_kl"],
        "explained_variance": model.logger.name_to_value["train/explained_variance"],
    }


def taken_up(folder):
    """Weights after two rollouts and two more, and of a training that was saved and taken up in between."""
    rank = place_of_process().rank
    policy_kwargs = {"core": "stm", "core_kwargs": CORES["stm"]}

    def new(seed):
        env = make_vec_env("relmem/MaskedCartPole-v0", ENVS // 2, seed=seed, flicker=0.2)
        return ParallelPPO("MemoryPolicy", env, policy_kwargs=policy_kwargs, **OPTIONS)

    rollouts = 2 * 32 * ENVS
    whole = new(0)
    whole.learn(2 * rollouts)
    begun = new(0)
    begun.learn(rollouts)
    begun.roll_back()  # which a run does at its end, and which changes nothing here
    if rank == 0:
        begun.save(folder / "saved")
    again = new(5)
    if rank == 0:  # the other process builds its model anew, as in a run
        env, again = again.env, ParallelPPO.load(folder / "saved")
        again.set_env(env)
        assert again.take_up(again.saved_at)
    again.learn(rollouts, reset_num_timesteps=False)
    vectors = [torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach() for model in (whole, again)]
    return {"weights": vectors, "steps": [whole.num_timesteps, again.num_timesteps]}


def with_learned_initial_state():
    """Weights after minibatches of two sequences, of which those that begin within an episode know no initial state."""
    place = place_of_process()
    env = make_vec_env("MountainCar-v0", ENVS // place.size)
    kind = MemoryPPO if place.size == 1 else ParallelPPO
    policy_kwargs = {"core": "stm", "core_kwargs": CORES["stm"] | {"learned_initial_state": True}}
    model = kind("MemoryPolicy", env, policy_kwargs=policy_kwargs, **OPTIONS | {"batch_size": 2 * 16, "n_epochs": 1})
    model.learn(32 * ENVS)
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


def skipped():
    """What becomes of a minibatch of which one process's part is not finite, and of weights that are not."""
    env = make_vec_env("relmem/MaskedCartPole-v0", ENVS // 2)
    model = ParallelPPO("MemoryPolicy", env, policy_kwargs={"core": "lstm", "core_kwargs": CORES["lstm"]}, **OPTIONS)
    loss, calls = model._loss, []

    def spoilt(*args):
        calls.append(None)
        if len(calls) == 2 and place_of_process().rank == 1:
            raise Diverged("the policy computes actions that are not finite")
        return loss(*args)

    model._loss = spoilt
    model.learn(32 * ENVS)
    made, model._loss = len(calls), loss
    model.learn(32 * ENVS, reset_num_timesteps=False)
    with torch.no_grad():
        model.policy.action_net.weight.fill_(float("nan"))
    model.learn(32 * ENVS, reset_num_timesteps=False)
    weights = torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
    return {"weights": weights, "skipped": model.guard.skipped, "calls": made, "went back": model.guard.halved}


@pytest.fixture(scope="module")
def in_two(tmp_path_factory):
    """By core or what else is tried, what the first of two processes has, and the second."""
    folder = tmp_path_factory.mktemp("two")
    torchrun(__file__, folder)
    files = *CORES, SKIPPED, INITIAL, RESUMED
    return {name: [torch.load(folder / f"{name}_{rank}.pt") for rank in (0, 1)] for name in files}


@pytest.mark.slow
@pytest.mark.parametrize("core", CORES)
def test_two_processes_do_what_one_does_with_all_environments(core, in_two, monkeypatch):
    first, second = in_two[core]
    weights = first.pop("weights")
    assert torch.equal(weights, second.pop("weights")) and first == second

    alone = trained(core)
    assert len(first["episodes"]) > 20
    for name in ("episodes", "steps", "updates", "next number", "clip_fraction"):
        assert first[name] == alone[name]
    torch.testing.assert_close(weights, alone["weights"], rtol=0, atol=2e-6)

    # To the bit, where it takes its minibatches in two parts too.
    monkeypatch.setattr(ppo, "n_parts", lambda policy, transitions: 2)
    monkeypatch.setattr(ppo, "mapping", lambda n: nullcontext(lambda *args: list(map(*args))))  # but on one thread
    halved = trained(core)
    assert torch.equal(weights, halved.pop("weights")) and first == halved


@pytest.mark.slow
def test_what_only_one_process_has_a_gradient_of_is_learned_by_both(in_two):
    first, second = in_two[INITIAL]
    assert torch.equal(first, second)
    torch.testing.assert_close(first, with_learned_initial_state(), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_two_processes_go_on_to_the_bit_where_they_were(in_two):
    for process in in_two[RESUMED]:
        whole, again = process["weights"]
        assert torch.equal(whole, again) and len(set(process["steps"])) == 1


@pytest.mark.slow
def test_two_processes_skip_the_same_updates_and_go_back_together(in_two):
    first, second = in_two[SKIPPED]
    assert torch.equal(first["weights"], second["weights"]) and first["weights"].isfinite().all()
    assert first["skipped"] == second["skipped"] == 1 and first["went back"] == second["went back"] == 1
    assert first["calls"] == second["calls"]


@pytest.mark.slow
def test_two_processes_keep_one_run_which_one_process_goes_on_with(tmp_path):
    train = ["-m", "relmem.cli", "train"]
    options = ["--config", "cartpole/masked_lstm", "--eval.episodes", "1", "--total_timesteps", "2000"]
    torchrun(*train, *options, "--run_dir", tmp_path / "run")
    results = RunFolder(tmp_path / "run").read_results()
    assert results["outcome"] == "finished" and results["steps"] == 2048 and len(results["commands"]) == 1
    with (tmp_path / "run" / "episodes.csv").open(encoding="utf-8") as file:
        assert len({int(row["step"]) for row in csv.DictReader(file)}) > 20
    assert type(load(tmp_path / "run")) is MemoryPPO
    assert main(["train", "--resume", str(tmp_path / "run"), "--total_timesteps", "3000"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "cartpole/masked_lstm_impala"], "train algo.name ppo"),
        (["--config", "cartpole/masked_lstm", "--env.n_envs", "9"], "env.n_envs must be a multiple of 2"),
        (["--config", "tasks/copy_stm"], "the processes of torchrun train agents"),
    ],
)
def test_what_processes_cannot_share_is_refused(options, message, monkeypatch, capsys):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main(["train", *options]) == 2
    assert message in capsys.readouterr().err


if __name__ == "__main__":  # in the processes of torchrun
    torch.set_num_threads(1)
    for core in CORES:
        torch.save(trained(core), f"{sys.argv[1]}/{core}_{place_of_process().rank}.pt")
    torch.save(with_learned_initial_state(), f"{sys.argv[1]}/{INITIAL}_{place_of_process().rank}.pt")
    torch.save(taken_up(Path(sys.argv[1])), f"{sys.argv[1]}/{RESUMED}_{place_of_process().rank}.pt")
    torch.save(skipped(), f"{sys.argv[1]}/{SKIPPED}_{place_of_process().rank}.pt")
