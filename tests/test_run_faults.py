"""What goes wrong around a training: files, pipes, signals, environments. The training is not what suffers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from relmem.agents import MemoryPPO
from relmem.cli import main
from relmem.cli.options import parse
from relmem.experiment import agent
from relmem.experiment import folder as run_folder
from relmem.experiment.episodes import EpisodeFile, describe_episodes, read_episodes
from relmem.experiment.folder import RunFolder
from relmem.experiment.stop import StopRequest

SAVED = Path(__file__).parent / "data" / "saved" / "run"  # by version 0.1.0
FLAGS = ["--core.name", "lstm", "--core.hidden_size", "8", "--env.n_envs", "4", "--algo.n_steps", "32"]
CARTPOLE = ["train", *FLAGS, "--algo.n_epochs", "1", "--env.id", "relmem/MaskedCartPole-v0"]
RELMEM = [sys.executable, "-c", "import sys; from relmem.cli import main; sys.exit(main(sys.argv[1:]))"]


def train(folder: Path, *flags: str, steps: int = 256) -> int:
    return main([*CARTPOLE, "--run_dir", str(folder), "--total_timesteps", str(steps), *flags])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train(folder) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


# -------------------------------------------------------------------- what a run is called and what it leaves behind


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--config", "pong/lstm", "--env.id", "ALE/Breakout-v5"], "breakout_lstm_ppo_s0"),
        (["--config", "pong/stm", "--seed", "3"], "pong_stm_ppo_s3"),
        (["--env.id", "PongNoFrameskip-v4", "--algo.name", "a3c", "--core.name", "gru"], "pong_gru_a3c_s0"),
        (["--env.id", "minigrid:MiniGrid-MemoryS7-v0"], "minigrid-memorys7_stm_ppo_s0"),
        (["--config", "tasks/copy_stm", "--core.name", "lstm"], "copy_lstm_s0"),
        (["--config", "tasks/copy_stm", "--task.name", "parity", "--seed", "1"], "parity_stm_s1"),
    ],
)
def test_a_run_is_named_after_what_is_trained(flags, name):
    asked = parse(flags)
    assert asked.job(asked.config).name == name


def test_a_title_is_wrapped_not_cut(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(agent, "draw_learning_curve", lambda path, steps, returns, title, *_: titles.append(title))
    assert train(tmp_path / ("long_" * 30), steps=128) == 0
    assert "long_" * 30 in titles[0].replace("\n", "") and max(map(len, titles[0].splitlines())) <= 80
    for part in ("relmem/MaskedCartPole-v0", "lstm", "ppo", "seed 0"):
        assert part in titles[0].replace("\n", " ")


def test_results_of_an_agent(trained):
    results = json.loads((trained / "results.json").read_text())
    episodes = read_episodes(trained / "episodes.csv")
    assert results["kind"] == "agent" and results["outcome"] == "finished" and results["steps"] == 256
    assert results["config"] == parse(["--config", str(trained / "config.yaml")]).config.as_dict()
    assert results["episodes"] == len(episodes) and results["frames_per_step"] == 1
    assert results["curve"][-1][0] == episodes[-1, 0]
    assert results["mean_return_last_100"] == pytest.approx(episodes[-100:, 1].mean(), abs=0.005)
    evaluation = results["evaluation"]
    assert evaluation["complete"] and evaluation["episodes"] == len(evaluation["returns"]) == 8
    assert results["parameters"] == sum(p.numel() for p in MemoryPPO.load(trained / "model.zip").policy.parameters())
    assert len(results["commands"]) == 1 and any(line.startswith("torch==") for line in results["versions"])


def test_a_curve_has_a_point_every_10_000_steps_and_says_when_a_level_was_reached():
    steps = np.arange(100, 25_100, 100)
    returns = np.where(steps <= 12_000, -21.0, 21.0)
    found = describe_episodes(np.column_stack([steps, returns, np.full(250, 100), steps / 100]))
    assert [point[:2] for point in found["curve"]] == [[10_000, 1.67], [20_000, 3.33], [25_000, 4.17]]
    assert found["curve"][0][2] == -21.0 and found["mean_return_last_100"] == 21.0
    assert found["first_reached"]["0"] == {"agent_steps": 17_100, "minutes": 2.85}
    assert found["first_reached"]["18"]["agent_steps"] == 21_300
    assert found["best_mean_return_100"] == 21.0
    lucky = describe_episodes(np.column_stack([steps, -returns, np.full(250, 100), steps / 100]))
    assert lucky["first_reached"]["10"]["agent_steps"] == 10_000  # and not with the first episode
    empty = describe_episodes(np.empty((0, 4)))
    assert empty["curve"] == [] and empty["mean_return_last_100"] is None


def test_a_run_saved_by_version_0_1_goes_on(tmp_path, capfd):
    run = Path(shutil.copytree(SAVED, tmp_path / "run"))
    assert "null" in (run / "config.yaml").read_text()
    before = read_episodes(run / "episodes.csv")
    assert before.shape == (3, 5) and np.isnan(before[:, 3:]).all()
    goes_on = ["train", "--resume", str(run), "--total_timesteps", "128"]
    assert main(goes_on) == 2 and "saved by an older version of relmem" in capfd.readouterr().err
    assert main([*goes_on, "--trusted"]) == 0
    after = read_episodes(run / "episodes.csv")
    assert MemoryPPO.load(run / "model.zip").num_timesteps == 128
    assert (after[:3, :3] == before[:, :3]).all() and len(after) > 3 and not np.isnan(after[3:]).any()
    assert "null" not in (run / "config.yaml").read_text()
    assert json.loads((run / "results.json").read_text())["steps"] == 128


def test_a_run_keeps_as_many_checkpoints_as_it_is_told_and_the_best_model(tmp_path, monkeypatch):
    for name in ("CHECKPOINT_SECONDS", "FIRST_CHECKPOINT_SECONDS"):
        monkeypatch.setattr(run_folder, name, 0.0)
    run = tmp_path / "run"
    assert train(run, "--keep", "1", "--eval.every", "128", "--eval.episodes", "2", steps=384) == 0
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step_{256:012d}.zip"]
    best = np.loadtxt(run / "evaluations.csv", delimiter=",", skiprows=1)
    assert MemoryPPO.load(run / "best_model.zip").num_timesteps == best[best[:, 1].argmax(), 0]
    (run / "model.zip").unlink()  # as if it had been killed
    assert main(["train", "--resume", str(run), "--total_timesteps", "512", "--keep", "2"]) == 0
    assert len(list((run / "checkpoints").iterdir())) == 2
    rows = np.loadtxt(run / "evaluations.csv", delimiter=",", skiprows=1)
    assert rows[:, 0].tolist() == [128, 256, 384, 512]


def test_evaluations_while_training_keep_the_best_model(tmp_path):
    run = tmp_path / "run"
    assert train(run, "--eval.every", "128", "--eval.episodes", "3", steps=384) == 0
    rows = np.loadtxt(run / "evaluations.csv", delimiter=",", skiprows=1)
    assert rows[:, 0].tolist() == [128, 256, 384]
    assert MemoryPPO.load(run / "best_model.zip").num_timesteps == rows[rows[:, 1].argmax(), 0]
    assert json.loads((run / "results.json").read_text())["evaluation"]["episodes"] == 3


# -------------------------------------------------------------------- final evaluation


class Slow(gymnasium.Env):
    """Its episodes, but for training ones, last longer than any limit on an interrupted evaluation."""

    observation_space, action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(2)

    def __init__(self, length: int = 60) -> None:
        self.length = length

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t >= self.length, False, {}


gymnasium.register("Slow-v0", Slow)
SLOW = ["train", *FLAGS, "--env.id", "Slow-v0", "--total_timesteps", "256"]


def test_an_uninterrupted_run_plays_every_episode_of_its_evaluation_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(agent, "EVALUATION_SECONDS", 1e-6)
    assert main([*SLOW, "--run_dir", str(tmp_path / "run")]) == 0
    evaluation = json.loads((tmp_path / "run" / "results.json").read_text())["evaluation"]
    assert evaluation == {"mean": 60.0, "episodes": 8, "returns": [60.0] * 8, "lengths": [60] * 8, "complete": True}


@pytest.mark.parametrize("during", ["training", "evaluation"])
def test_after_a_stop_the_evaluation_is_short_and_marked_as_cut_and_made_up_for_later(
    during, tmp_path, monkeypatch, capfd
):
    run, evaluate, step, seconds = tmp_path / "run", agent.evaluate, agent.Watch._on_step, []

    def stopped_step(callback):
        if during == "training" and callback.num_timesteps > 100:
            signal.raise_signal(signal.SIGINT)
        return step(callback)

    def stopped_evaluation(model, env, episodes, limit, progress):
        seconds.append(limit)
        if limit is None:
            signal.raise_signal(signal.SIGINT)
        return evaluate(model, env, episodes, 1e-6, progress)

    monkeypatch.setattr(agent.Watch, "_on_step", stopped_step)
    monkeypatch.setattr(agent, "evaluate", stopped_evaluation)
    assert main([*SLOW, "--run_dir", str(run)]) == 128 + signal.SIGINT
    assert seconds == ([20.0] if during == "training" else [None, 20.0])
    assert "cut off" in capfd.readouterr().out
    results = json.loads((run / "results.json").read_text())
    assert results["evaluation"]["complete"] is False and results["outcome"] == (
        "stopped" if during == "training" else "finished"
    )
    monkeypatch.undo()
    assert main(["train", "--resume", str(run)]) == 0
    assert json.loads((run / "results.json").read_text())["evaluation"]["complete"] is True


# -------------------------------------------------------------------- side output


def test_a_reader_that_goes_away_ends_no_training(tmp_path):
    command = [*RELMEM, *CARTPOLE, "--run_dir", str(tmp_path / "run"), "--total_timesteps", "512"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("Run folder:")
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=300) == 0 and "Broken pipe" not in errors and "Traceback" not in errors
    assert json.loads((tmp_path / "run" / "results.json").read_text())["outcome"] == "finished"


def full_disk(monkeypatch, *names: str) -> list[str]:
    """Files with these words in their names cannot be written; what was tried."""
    tried, replacing = [], run_folder.replacing

    def failing(path):
        if any(name in path.name for name in names):
            tried.append(path.name)
            raise OSError(28, "No space left on device", str(path))
        return replacing(path)

    monkeypatch.setattr(run_folder, "replacing", failing)
    return tried


def test_a_checkpoint_that_cannot_be_written_is_tried_again_and_mentioned_once(tmp_path, monkeypatch, capfd):
    for name in ("CHECKPOINT_SECONDS", "FIRST_CHECKPOINT_SECONDS"):
        monkeypatch.setattr(run_folder, name, 0.0)
    tried = full_disk(monkeypatch, "step_")
    assert train(tmp_path / "run", "--algo.n_steps", "4") == 0
    errors = capfd.readouterr().err
    assert len(tried) > 10 and errors.count("cannot write a checkpoint") == 1 and "lacks: a checkpoint" in errors
    assert MemoryPPO.load(tmp_path / "run" / "model.zip").num_timesteps == 256


def test_a_model_that_cannot_be_saved_in_its_folder_is_saved_elsewhere(tmp_path, monkeypatch, capfd):
    save = run_folder.save

    def failing(model, path):
        if path.parent == tmp_path / "run":
            raise OSError(28, "No space left on device", str(path))
        save(model, path)

    monkeypatch.setattr(run_folder, "save", failing)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(run_folder.tempfile, "tempdir", None)
    assert train(tmp_path / "run") == 1
    printed = capfd.readouterr()
    (elsewhere,) = tmp_path.glob("run_*/model.zip")
    assert str(elsewhere) in printed.out and "lacks: the model" in printed.err
    assert MemoryPPO.load(elsewhere).num_timesteps == 256


def test_results_and_picture_that_cannot_be_written_are_named(tmp_path, monkeypatch, capfd):
    def failing(*_):
        raise OSError(28, "No space left on device")

    full_disk(monkeypatch, "results.json")
    monkeypatch.setattr(agent, "draw_learning_curve", failing)
    assert train(tmp_path / "run") == 0
    errors = capfd.readouterr().err
    assert "lacks: results.json" in errors and "lacks: learning_curve.png" in errors
    assert (tmp_path / "run" / "model.zip").exists()


def test_a_run_folder_that_vanishes_is_made_again(tmp_path, monkeypatch, capfd):
    run, step, gone = tmp_path / "run", agent.Watch._on_step, []

    def vanish(callback):
        if callback.num_timesteps > 100 and not gone:
            gone.append(shutil.rmtree(run))
        return step(callback)

    monkeypatch.setattr(agent.Watch, "_on_step", vanish)
    assert train(run) == 0
    assert MemoryPPO.load(run / "model.zip").num_timesteps == 256
    assert len(read_episodes(run / "episodes.csv")) == json.loads((run / "results.json").read_text())["episodes"]
    assert "was removed" in capfd.readouterr().err
    assert main(["train", "--resume", str(run)]) == 0  # with all that it takes


def test_episodes_that_cannot_be_written_are_written_later(tmp_path, monkeypatch, capfd):
    run = RunFolder(tmp_path / "run")
    episodes = EpisodeFile(run, 0)  # there is no such folder
    episodes.add(10, 1.0, 10)
    run.path.mkdir()
    episodes.add(20, 2.0, 10)
    episodes.close()
    assert read_episodes(run.episodes)[:, :3].tolist() == [[10, 1, 10], [20, 2, 10]]
    assert capfd.readouterr().err.count("cannot write episodes.csv") == 1 and not any(run.missing.values())


def test_a_tensorboard_log_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, capfd):
    from relmem.experiment import tensorboard_log

    def failing(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard_log, "SummaryWriter", failing)
    assert train(tmp_path / "run") == 0
    errors = capfd.readouterr().err
    assert errors.count("cannot write the TensorBoard log") == 1 and "Traceback" not in errors


# -------------------------------------------------------------------- endings


def start(folder: Path, *before: str) -> subprocess.Popen:
    flags = [*CARTPOLE, "--run_dir", str(folder), "--total_timesteps", "1000000000"]
    process = subprocess.Popen([*before, *RELMEM, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not len(read_episodes(folder / "episodes.csv")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal")
def test_a_closed_terminal_ends_a_run_in_good_order_unless_below_nohup(tmp_path):
    process = start(tmp_path / "run")
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=300) == 128 + signal.SIGHUP
    assert json.loads((tmp_path / "run" / "results.json").read_text())["outcome"] == "stopped"
    process = start(tmp_path / "deaf", "nohup")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 128 + signal.SIGTERM


def test_a_second_signal_during_the_save_ends_the_program_after_it(tmp_path, monkeypatch):
    save, step = run_folder.save, agent.Watch._on_step

    def interrupted(model, path):
        signal.raise_signal(signal.SIGTERM)
        save(model, path)

    def stop(callback):
        signal.raise_signal(signal.SIGINT)
        return step(callback)

    monkeypatch.setattr(run_folder, "save", interrupted)
    monkeypatch.setattr(agent.Watch, "_on_step", stop)
    assert train(tmp_path / "run") == 128 + signal.SIGTERM
    assert MemoryPPO.load(tmp_path / "run" / "model.zip").num_timesteps == 0  # the first rollout came to no end
    assert not (tmp_path / "run" / "learning_curve.png").exists()


def test_a_third_signal_ends_even_a_save():
    with StopRequest() as stop, pytest.raises(KeyboardInterrupt), stop.held():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("not reached")


class Ends(Slow):
    """Ends the program, by what its class says."""

    error = KeyboardInterrupt

    def step(self, action):
        if self.t == 40:
            raise self.error
        return super().step(action)


class Exits(Ends):
    error = SystemExit


gymnasium.register("Interrupts-v0", Ends)
gymnasium.register("Exits-v0", Exits)


def test_an_interrupt_that_an_environment_raises_is_no_success(tmp_path):
    flags = ["train", *FLAGS, "--env.id", "Interrupts-v0", "--run_dir", str(tmp_path / "run")]
    assert main([*flags, "--total_timesteps", "1024"]) == 130
    assert MemoryPPO.load(tmp_path / "run" / "model.zip").num_timesteps == 128
    assert json.loads((tmp_path / "run" / "results.json").read_text())["outcome"] == "stopped"


def test_nor_is_an_exit_that_an_environment_asks_for(tmp_path):
    flags = ["train", *FLAGS, "--env.id", "Exits-v0", "--run_dir", str(tmp_path / "run")]
    with pytest.raises(RuntimeError, match="ended the program"):
        main([*flags, "--total_timesteps", "1024"])
    assert MemoryPPO.load(tmp_path / "run" / "model.zip").num_timesteps == 128


# -------------------------------------------------------------------- resuming


def spoil_episodes(run):
    with (run / "episodes.csv").open("ab") as file:
        file.write(b"\0\0")


def spoil_an_episode(run):
    lines = (run / "episodes.csv").read_bytes().splitlines(keepends=True)
    (run / "episodes.csv").write_bytes(b"".join([*lines[:2], b"\0\xff,nonsense\n", *lines[2:]]))


def copy_a_checkpoint(run):
    shutil.copy(run / "model.zip", run / "checkpoints" / "step_copy.zip")


def truncate_the_newest(run):
    MemoryPPO.load(run / "model.zip").save(run / "checkpoints" / "step_000000000256.zip")
    whole = (run / "model.zip").read_bytes()
    (run / "model.zip").write_bytes(whole[: len(whole) // 2])
    (run / "checkpoints" / "step_000000000999.zip").write_bytes(whole[:-100])


def flip_a_bit_of_the_newest(run):
    MemoryPPO.load(run / "model.zip").save(run / "checkpoints" / "step_000000000256.zip")
    whole = bytearray((run / "model.zip").read_bytes())
    whole[whole.index(b"policy.safetensors") + 2000] ^= 1
    (run / "model.zip").write_bytes(whole)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (spoil_episodes, None),
        (spoil_an_episode, "episodes.csv"),
        (copy_a_checkpoint, "step_copy.zip"),
        (truncate_the_newest, "step_000000000999.zip"),
        (flip_a_bit_of_the_newest, "model.zip"),
    ],
)
def test_a_run_goes_on_from_what_is_whole(spoil, named, run, capfd):
    episodes = read_episodes(run / "episodes.csv")
    spoil(run)
    assert main(["train", "--resume", str(run), "--total_timesteps", "384"]) == 0
    assert MemoryPPO.load(run / "model.zip").num_timesteps == 384
    np.testing.assert_array_equal(read_episodes(run / "episodes.csv")[: len(episodes)], episodes)
    assert named is None or named in capfd.readouterr().err


def test_files_that_were_left_half_written_are_cleared_away(run):
    for folder in (run, run / "checkpoints"):
        (folder / ".model.zip.partial").write_bytes(b"half")
    assert main(["train", "--resume", str(run), "--total_timesteps", "384"]) == 0
    assert not list(run.rglob("*.partial"))


def test_a_schedule_that_is_stretched_is_mentioned(tmp_path, capfd):
    assert train(tmp_path / "run", "--algo.learning_rate", "lin_1e-3", steps=128) == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--total_timesteps", "256"]) == 0
    assert "algo.learning_rate falls to zero over all 256 steps" in capfd.readouterr().err


# -------------------------------------------------------------------- preparing


@pytest.mark.parametrize("kind", [KeyError, RuntimeError, AssertionError, SystemExit])
def test_whatever_fails_before_the_training_is_one_sentence_and_leaves_no_folder(kind, tmp_path, monkeypatch, capfd):
    def broken():
        raise kind("a file of the environment's")

    gymnasium.register(f"Broken{kind.__name__}-v0", broken)
    monkeypatch.chdir(tmp_path)
    assert main(["train", *FLAGS, "--env.id", f"Broken{kind.__name__}-v0"]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if not line.endswith(" ...")]
    assert len(errors) == 1 and "a file of the environment's" in errors[0] and list(tmp_path.iterdir()) == []


def test_threads_and_waiting(tmp_path, monkeypatch):
    code = (
        "import os, sys, torch; from relmem.cli import main; code = main(sys.argv[1:]);"
        "print(code, torch.get_num_threads(), os.environ['OMP_WAIT_POLICY'])"
    )
    flags = [*CARTPOLE, "--smoke", "--threads", "1", "--run_dir", "run"]
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    for chosen, folder in ((None, "a"), ("ACTIVE", "b")):
        result = subprocess.run(
            [sys.executable, "-c", code, *flags[:-1], folder],
            cwd=tmp_path,
            env=environment | ({"OMP_WAIT_POLICY": chosen} if chosen else {}),
            capture_output=True,
            text=True,
        )
        assert result.stdout.splitlines()[-1] == f"0 1 {chosen or 'PASSIVE'}", result.stderr
    assert json.loads((tmp_path / "a" / "results.json").read_text())["threads"] == 1


def test_what_takes_long_is_named(capfd):
    from relmem.common.output import stage

    heard, deadline = "", time.monotonic() + 60
    with stage("doing something", seconds=0.05):
        while not heard and time.monotonic() < deadline:
            time.sleep(0.05)
            heard += capfd.readouterr().err
    with stage("doing nothing", seconds=1000):
        pass
    assert heard + capfd.readouterr().err == "relmem: doing something ...\n"


def test_a_banner_says_what_is_trained_and_on_what(tmp_path, capfd):
    assert train(tmp_path / "run", "--threads", "1", steps=128) == 0
    banner = " ".join(capfd.readouterr().out.splitlines()[:3])
    for fact in (str(tmp_path / "run"), "128 steps", "parameters", "4 environments x 32 steps", "cpu", "1 thread"):
        assert fact in banner
