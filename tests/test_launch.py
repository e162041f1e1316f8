"""Trainings side by side: each in a process of its own, and a stop that reaches all of them."""

import signal
import threading
import time

import pytest
import ray
from filelock import FileLock

from relmem.cli.launch import Training, launcher
from relmem.experiment.folder import is_over

OPTIONS = ("--config", "cartpole/masked_lstm", "--env.n_envs", "2", "--algo.n_steps", "32", "--core.hidden_size", "4",
           "--eval.episodes", "1")  # fmt: skip


def test_an_unknown_launcher():
    with pytest.raises(ValueError, match="unknown launcher 'locl': did you mean 'local'"):
        launcher("locl")


@pytest.mark.slow
def test_each_training_has_a_process_and_a_log(tmp_path, capsys):
    short = Training(tmp_path / "short", (*OPTIONS, "--total_timesteps", "64"))
    wrong = Training(tmp_path / "wrong", (*OPTIONS, "--core.name", "lsmt"))
    others = Training(tmp_path / "others", OPTIONS)
    ended = {}
    with FileLock(tmp_path / ".others.queue"):
        assert launcher("local", 2)([short, wrong, others], ended.__setitem__) == 2
    assert ended == {short: 0, wrong: 2} and is_over(short.folder) and not others.folder.exists()
    assert "1 thread(s)" in short.log.read_text()
    assert "wrong: failed with exit code 2 (unknown core 'lsmt'" in capsys.readouterr().out


@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_that_cannot_be_begun_keeps_no_other_from_being_run(processes, tmp_path, capsys):
    (tmp_path / "file").touch()
    bad = [Training(tmp_path / "file" / name, OPTIONS) for name in ("one", "other")]
    assert launcher("local", processes)(bad, lambda *_: None) == 1
    assert capsys.readouterr().err.count("cannot train") == 2


@pytest.mark.slow
def test_a_stop_lets_each_training_save_and_starts_no_other(tmp_path, capsys):
    one, other, third = (
        Training(tmp_path / name, (*OPTIONS, "--total_timesteps", "10_000_000")) for name in ("one", "other", "third")
    )

    def stop():
        while not all((training.folder / "episodes.csv").exists() for training in (one, other)):
            time.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)

    ended = {}
    threading.Thread(target=stop, daemon=True).start()
    assert launcher("local", 2)([one, other, third], ended.__setitem__) == 128 + signal.SIGTERM
    assert ended == {one: 128 + signal.SIGTERM, other: 128 + signal.SIGTERM} and not third.folder.exists()
    assert all((training.folder / "model.zip").exists() for training in (one, other))
    assert one.arguments()[:2] == ["train", "--resume"] and third.arguments()[-2] == "--run_dir"
    assert "one: stopped" in capsys.readouterr().out


@pytest.mark.slow
def test_ray_runs_trainings_and_passes_a_stop_on(tmp_path, capsys):
    short, endless = (
        Training(tmp_path / name, (*OPTIONS, "--total_timesteps", steps))
        for name, steps in (("short", "64"), ("endless", "10_000_000"))
    )

    def stop():
        while not (endless.folder / "episodes.csv").exists() or short not in ended:
            time.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)

    ended = {}
    try:
        launch = launcher("ray", 2)
        threading.Thread(target=stop, daemon=True).start()
        assert launch([short, endless], ended.__setitem__) == 128 + signal.SIGTERM
    finally:
        ray.shutdown()
    assert ended == {short: 0, endless: 128 + signal.SIGTERM} and (endless.folder / "model.zip").exists()
    assert "endless: stopped" in capsys.readouterr().out
