"""Ctrl-C and SIGTERM: the first ends a run in good order, the second at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relmem.agents import A3C, MemoryPPO
from relmem.cli import main
from relmem.experiment import agent, folder
from relmem.experiment.episodes import read_episodes
from relmem.experiment.folder import RunFolder
from relmem.experiment.stop import StopRequest

CARTPOLE = ["train", "--core.name", "lstm", "--core.hidden_size", "8", "--env.id", "relmem/MaskedCartPole-v0"]
PPO = [*CARTPOLE, "--env.n_envs", "4", "--algo.n_steps", "32", "--algo.n_epochs", "2"]
A3C_ = [*CARTPOLE, "--algo.name", "a3c", "--algo.workers", "1", "--algo.envs_per_worker", "4"]


def test_the_first_signal_asks_and_the_second_ends_at_once():
    default = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop
        signal.raise_signal(signal.SIGTERM)
        assert stop and stop.signal == signal.SIGTERM and not stop.again
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.again
    assert signal.getsignal(signal.SIGTERM) == default


def test_an_update_is_left_at_once():
    with StopRequest() as stop:
        stop.at_once = True
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop and not stop.again


def test_a_stretch_that_a_stop_ends():
    done = []
    with StopRequest() as stop:
        with stop.immediate():
            signal.raise_signal(signal.SIGINT)
            done.append("not reached")
        assert stop and not stop.at_once and not done
        with pytest.raises(KeyboardInterrupt), stop.immediate():
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("module", "name"), [(folder, "save"), (agent, "draw_learning_curve")])
def test_a_stop_after_the_training_loses_nothing(module, name, tmp_path, monkeypatch):
    function = getattr(module, name)

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGTERM)
        function(*arguments)

    monkeypatch.setattr(module, name, interrupted)
    assert main([*PPO, "--run_dir", str(tmp_path / "run"), "--total_timesteps", "256"]) == 128 + signal.SIGTERM
    assert (tmp_path / "run" / "model.zip").exists() and (tmp_path / "run" / "learning_curve.png").exists()


def start(flags: list[str], folder: Path) -> subprocess.Popen:
    """Start a long training in a process group of its own, and wait until it plays."""
    code = "import sys; from relmem.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [*flags, "--total_timesteps", "1000000000", "--run_dir", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not len(read_episodes(folder / "episodes.csv")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def processes_of_group(group: int) -> bool:
    """Whether any process of a process group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("flags", "number"), [(PPO, signal.SIGINT), (PPO, signal.SIGTERM), (A3C_, signal.SIGINT)])
def test_an_interrupted_run_is_saved_evaluated_and_drawn(flags, number, tmp_path):
    process = start(flags, tmp_path)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    assert process.wait(timeout=300) == 128 + number
    assert RunFolder(tmp_path).newest_checkpoint() == tmp_path / "model.zip"
    assert {"learning_curve.png", "config.yaml", "command.txt"} <= {path.name for path in tmp_path.iterdir()}
    steps = (A3C if flags is A3C_ else MemoryPPO).load(tmp_path / "model.zip").num_timesteps
    rollout = 4 * 20 if flags is A3C_ else 4 * 32  # PPO does not count the rollout that it was stopped in
    assert steps % rollout == 0
    assert steps == json.loads((tmp_path / "results.json").read_text())["steps"]
    assert len(read_episodes(tmp_path / "episodes.csv"))
    assert "Traceback" not in process.stderr.read()
    deadline = time.monotonic() + 60  # for Python's own helper process to notice that its parent is gone
    while processes_of_group(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_interrupt_ends_at_once(tmp_path):
    process = start(PPO, tmp_path)
    process.send_signal(signal.SIGINT)
    while process.stderr.readline() != "Stopping and saving. Ctrl-C again quits at once.\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    assert not (tmp_path / "learning_curve.png").exists()
    assert not list(tmp_path.glob("*.partial"))
