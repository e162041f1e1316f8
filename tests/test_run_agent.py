"""What a run leaves behind, and how it is continued."""

import itertools
import json
import shutil
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from relmem.agents import A3C, MemoryPPO, load
from relmem.agents.evaluate import evaluate
from relmem.cli import main
from relmem.cli.config_files import shipped_configs
from relmem.cli.options import parse
from relmem.cli.train import prepare
from relmem.envs import make_vec_env
from relmem.experiment import agent
from relmem.experiment import folder as run_folder
from relmem.experiment.callbacks import Watch
from relmem.experiment.episodes import EpisodeFile, read_episodes
from relmem.experiment.folder import RunFolder, make_default_path, save
from relmem.experiment.pictures import running_mean
from relmem.experiment.progress import Progress
from relmem.experiment.stop import StopRequest
from relmem.tasks import make_task

CARTPOLE = ["train", "--core.name", "lstm", "--core.hidden_size", "8", "--env.id", "relmem/MaskedCartPole-v0"]
PPO = [*CARTPOLE, "--env.n_envs", "4", "--algo.n_steps", "32", "--algo.n_epochs", "2"]
A3C_ = [*CARTPOLE, "--algo.name", "a3c", "--algo.workers", "1", "--algo.envs_per_worker", "4"]


def watch(folder: RunFolder, total_timesteps: int) -> Watch:
    return Watch(folder, EpisodeFile(folder, 0), total_timesteps, 1, StopRequest())


def one_sentence(capfd) -> str:
    """What was said of a mistake: one line, beside words such as "preparing ..." where that takes long."""
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.endswith(" ...")]
    assert len(lines) == 1 and lines[0].startswith("relmem: "), lines
    return lines[0]


def tags(folder: Path) -> dict[str, list[int]]:
    """Steps of every curve in the TensorBoard files of a folder."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def ppo_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ppo"
    assert main([*PPO, "--run_dir", str(folder), "--total_timesteps", "512", "--seed", "3"]) == 0
    return folder


@pytest.fixture
def ppo_copy(ppo_run, tmp_path):
    return Path(shutil.copytree(ppo_run, tmp_path / "run"))


@pytest.fixture
def checkpoint_at_once(monkeypatch):
    for name in ("CHECKPOINT_SECONDS", "FIRST_CHECKPOINT_SECONDS"):
        monkeypatch.setattr(run_folder, name, 0.0)


def test_a_run_folder_holds_all_there_is_to_know(ppo_run):
    config = parse(["--config", str(ppo_run / "config.yaml")]).config
    assert [config[key] for key in ("total_timesteps", "seed", "env.n_envs", "algo.n_steps")] == [512, 3, 4, 32]
    assert (ppo_run / "command.txt").read_text().startswith("relmem train --core.name lstm --core.hidden_size 8")
    assert f"torch=={torch.__version__}" in (ppo_run / "versions.txt").read_text().splitlines()
    assert MemoryPPO.load(ppo_run / "model.zip").num_timesteps == 512
    assert (ppo_run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert (ppo_run / "checkpoints").is_dir()


def test_tensorboard_has_the_names_of_sb3_and_more(ppo_run):
    curves = tags(ppo_run)
    expected = {
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "time/fps",
        "time/frames",
        "train/loss",
        "train/approx_kl",
    }
    assert expected | {"eval/mean_reward", "memory/core_grad_norm"} <= set(curves)
    assert curves["time/frames"] == [128, 256, 384, 512]


def test_tensorboard_has_the_settings_beside_the_metrics(ppo_run):
    metadata = EventAccumulator(str(ppo_run)).Reload().summary_metadata["_hparams_/session_start_info"]
    content = HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
    assert content["core.name"].string_value == "lstm" and content["algo.n_steps"].number_value == 32


def test_every_episode_is_written_down(ppo_run):
    steps, returns, lengths, seconds, processor_seconds = read_episodes(ppo_run / "episodes.csv").T
    assert (np.diff(seconds) >= 0).all() and seconds[0] >= 0
    assert (np.diff(processor_seconds) >= 0).all() and 0 < processor_seconds[-1] < 10 * seconds[-1] + 1
    assert len(steps) > 5 and (np.diff(steps) >= 0).all() and steps[-1] <= 512
    np.testing.assert_array_equal(returns, lengths)  # CartPole gives 1 for every step


def test_the_log_of_episodes_tells_returns_from_lengths(tmp_path):
    log = watch(RunFolder(tmp_path), 64)
    env = make_vec_env("CartPole-v1", 1, frame_skip=4, seed=0)  # up to four of reward for a step
    MemoryPPO("MemoryPolicy", env, n_steps=64).learn(64, log)
    log.close()
    _, returns, lengths, *_ = read_episodes(tmp_path / "episodes.csv").T
    assert len(returns) and (returns > lengths).all()


def test_a_run_folder_is_held_while_it_is_trained(tmp_path):
    flags = ["--env.id", "CartPole-v1", "--env.n_envs", "1", "--core.name", "gru", "--algo.n_steps", "8"]
    run = prepare([*flags, "--run_dir", str(tmp_path / "run")]).__self__
    with pytest.raises(ValueError, match="is being trained by another process"):
        prepare(["--resume", str(tmp_path / "run")])
    run.folder.release()
    save(run.job.learner, run.folder.model)
    resumed = prepare(["--resume", str(tmp_path / "run")]).__self__
    with pytest.raises(ValueError, match="is being trained by another process"):
        prepare(["--resume", str(tmp_path / "run")])
    resumed.folder.release()


def test_checkpoints_are_minutes_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "FIRST_CHECKPOINT_SECONDS", 0.0)
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    MemoryPPO("MemoryPolicy", make_vec_env("CartPole-v1", 2), n_steps=4).learn(16, watch(folder, 16))
    assert [path.name for path in folder.checkpoints.iterdir()] == ["step_000000000000.zip"]


def test_the_first_lines_say_where_the_run_is_and_how_to_watch_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*PPO, "--smoke"]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    folder = Path(first.removeprefix("Run folder:  "))
    assert folder.parent == Path("runs") and (folder / "model.zip").is_file()
    assert folder.name.startswith("maskedcartpole_lstm_ppo_s0_")
    assert second.endswith(f"tensorboard --logdir {folder}")


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_trains(name, tmp_path):
    assert main(["train", "--config", name, "--smoke", "--run_dir", str(tmp_path / "run")]) == 0
    if not name.startswith("tasks/"):
        assert (tmp_path / "run" / "model.zip").is_file()
        return
    assert (tmp_path / "run" / "model.pt").is_file()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["test"]["test"][results["metric"]] >= 0
    assert ("epochs" in results) == make_task(results["task"]).fixed


def test_frames_are_steps_times_frame_skip(tmp_path):
    flags = ["--env.id", "ALE/Pong-v5", "--algo.n_steps", "8", "--env.n_envs", "2", "--env.frame_skip", "16"]
    flags += ["--policy.features", "small", "--core.name", "lstm", "--core.hidden_size", "8", "--smoke"]
    assert main(["train", "--run_dir", str(tmp_path / "run"), *flags]) == 0
    model = MemoryPPO.load(tmp_path / "run" / "model.zip")
    assert model.observation_space.shape == (1, 84, 84)
    assert tags(tmp_path / "run")["time/frames"][-1] == 64  # the log has steps, its value frames


def test_a_run_is_never_overwritten(ppo_run, capfd):
    before = {path: path.stat().st_mtime_ns for path in ppo_run.rglob("*")}
    assert main([*PPO, "--run_dir", str(ppo_run)]) == 2
    assert f"run folder '{ppo_run}' is not empty" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in ppo_run.rglob("*")} == before


def test_a_folder_without_a_checkpoint_is_not_offered_for_resuming(tmp_path, capfd):
    (tmp_path / "config.yaml").touch()
    assert main([*PPO, "--run_dir", str(tmp_path)]) == 2
    error = capfd.readouterr().err
    assert "is not empty: choose another --run_dir, or remove it" in error and "--resume" not in error


def test_a_path_that_is_too_long_is_named(tmp_path, capfd):
    assert main([*PPO, "--run_dir", str(tmp_path / ("x" * 300))]) == 2
    assert "File name too long" in capfd.readouterr().err


def test_a_smoke_run_fails_where_the_whole_one_would(tmp_path, capfd):
    assert main([*PPO, "--smoke", "--algo.batch_size", "50", "--run_dir", str(tmp_path / "run")]) == 2
    assert "batch_size 50 does not cut 4 environments x 32 steps" in capfd.readouterr().err


def test_a_training_that_diverges_ends_in_one_sentence(tmp_path, capfd):
    flags = ["--run_dir", str(tmp_path / "run"), "--algo.learning_rate", "1e30", "--algo.max_skipped", "2"]
    assert main([*PPO, *flags, "--total_timesteps", "512"]) == 1
    error = capfd.readouterr().err
    assert "a smaller learning_rate" in error and "--resume" not in error and "Traceback" not in error
    assert not (tmp_path / "run" / "model.zip").exists()


def test_runs_that_start_in_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    paths = [make_default_path("x") for _ in range(3)]
    assert [path.name for path in paths] == ["x_now", "x_now_2", "x_now_3"]
    assert main([*PPO, "--total_timesteps", "128", "--smoke"]) == 0
    trained = [path.name for path in (tmp_path / "runs").iterdir() if (path / "model.zip").exists()]
    assert trained == ["maskedcartpole_lstm_ppo_s0_now"]


def test_resume_continues_parameters_optimizer_counters_and_curves(ppo_copy, capsys):
    before = MemoryPPO.load(ppo_copy / "model.zip")
    episodes = read_episodes(ppo_copy / "episodes.csv")
    assert main(["train", "--resume", str(ppo_copy), "--total_timesteps", "1024"]) == 0
    after = MemoryPPO.load(ppo_copy / "model.zip")
    assert after.num_timesteps == 1024 and after._n_updates == 2 * before._n_updates
    steps = [next(iter(model.policy.optimizer.state.values()))["step"].item() for model in (before, after)]
    assert steps[1] == 2 * steps[0]
    assert tags(ppo_copy)["time/frames"] == [128 * i for i in range(1, 9)]
    np.testing.assert_array_equal(read_episodes(ppo_copy / "episodes.csv")[: len(episodes)], episodes)
    assert (ppo_copy / "command.txt").read_text().count("relmem train") == 2
    assert f"Run folder:  {ppo_copy}" in capsys.readouterr().out


def test_resume_continues_schedules(tmp_path):
    flags = [*PPO, "--run_dir", str(tmp_path / "run"), "--algo.learning_rate", "lin_1e-3"]
    assert main([*flags, "--total_timesteps", "256"]) == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--total_timesteps", "512"]) == 0
    rates = EventAccumulator(str(tmp_path / "run")).Reload().Scalars("train/learning_rate")
    # An update takes the rate at the end of its rollout: 128 of 256 steps, 256 of 256, then 384 of 512 and 512 of 512.
    # What was recorded at 256 is written where that run ends, and where it goes on, as if it had not ended.
    np.testing.assert_allclose([rate.value for rate in rates], [0.5e-3, 0.0, 0.0, 0.25e-3, 0.0], rtol=1e-5)


def test_a_model_has_the_seed_and_precision_of_its_config_and_new_episodes_when_it_goes_on(tmp_path, monkeypatch):
    flags = ["--env.n_envs", "2", "--core.name", "gru", "--seed", "3", "--precision", "bf16"]
    config = parse(["--env.id", "relmem/MaskedCartPole-v0", *flags]).config
    job = agent.AgentJob(config)
    job.prepare(None)
    model = job.learner
    assert (model.seed, model.precision) == (3, "bf16")
    model.num_timesteps = 40
    model.precision = "fp32"
    model.save(tmp_path / "model.zip")
    seeds, make = [], agent.make_vec_env
    monkeypatch.setattr(agent, "make_vec_env", lambda *a, seed, **k: seeds.append(seed) or make(*a, seed=seed, **k))
    job.prepare(tmp_path / "model.zip")
    assert job.learner.precision == "bf16" and seeds[-1] == 43


def test_resume_takes_the_newest_checkpoint_and_forgets_what_came_after_it(ppo_copy):
    newest = ppo_copy / "checkpoints" / "step_000000000512.zip"
    (ppo_copy / "model.zip").rename(newest)
    early = MemoryPPO.load(newest)
    early.num_timesteps = 256
    early.save(ppo_copy / "model.zip")  # later by the clock
    early.save(ppo_copy / "checkpoints" / "step_000000000256.zip")
    with (ppo_copy / "episodes.csv").open("a") as file:
        file.write("9999,1.0,1\n")
    assert main(["train", "--resume", str(ppo_copy), "--total_timesteps", "640"]) == 0
    assert MemoryPPO.load(ppo_copy / "model.zip").num_timesteps == 640
    assert 9999 not in read_episodes(ppo_copy / "episodes.csv")[:, 0]


def test_curves_behind_the_checkpoint_are_drawn_once(ppo_copy):
    model = MemoryPPO.load(ppo_copy / "model.zip")
    model.num_timesteps = 256  # as if killed after the checkpoint of 256 steps
    model.save(ppo_copy / "model.zip")
    assert main(["train", "--resume", str(ppo_copy)]) == 0
    assert tags(ppo_copy)["time/frames"] == [128, 256, 384, 512]


def test_what_was_learned_survives_a_failure(tmp_path, monkeypatch, capfd):
    def fail(callback):
        if callback.num_timesteps > 200:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(agent.Watch, "_on_rollout_end", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        main([*PPO, "--run_dir", str(tmp_path / "run"), "--total_timesteps", "512"])
    assert f"--resume {tmp_path / 'run'}" in capfd.readouterr().err
    monkeypatch.undo()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert MemoryPPO.load(tmp_path / "run" / "model.zip").num_timesteps == 512


def test_spoiled_weights_are_not_saved(tmp_path, monkeypatch, checkpoint_at_once):
    def fail(callback):
        if callback.num_timesteps > 200:
            with torch.no_grad():
                callback.model.policy.value_net.weight.fill_(float("nan"))
            raise RuntimeError("overflow")

    monkeypatch.setattr(agent.Watch, "_on_rollout_end", fail)
    with pytest.raises(RuntimeError, match="overflow"):
        main([*PPO, "--run_dir", str(tmp_path / "run"), "--total_timesteps", "512"])
    monkeypatch.setattr(agent.Watch, "_on_rollout_end", lambda callback: None)
    assert load(tmp_path / "run" / "model.zip").policy.value_net.weight.isfinite().all()  # those before the rollout
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert load(tmp_path / "run").policy.value_net.weight.isfinite().all()


def test_a_run_of_an_older_version_goes_on(ppo_copy):
    config = ppo_copy / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    kept = [line for line in lines if "normalize_advantage" not in line]
    assert len(kept) == len(lines) - 1
    config.write_text("".join(kept))
    assert main(["train", "--resume", str(ppo_copy), "--total_timesteps", "640"]) == 0
    assert config.read_text() == "".join(lines).replace("512", "640")


def test_an_episode_that_was_cut_off_is_forgotten(ppo_copy):
    episodes = ppo_copy / "episodes.csv"
    whole = episodes.read_bytes()
    episodes.write_bytes(whole + b"500,1")
    assert len(read_episodes(episodes)) == len(whole.splitlines()) - 1
    assert main(["train", "--resume", str(ppo_copy), "--total_timesteps", "640"]) == 0
    assert episodes.read_bytes().startswith(whole) and len(read_episodes(episodes)) >= len(whole.splitlines()) - 1


def test_a_run_that_is_not_there_is_not_made(tmp_path, capfd):
    assert main(["train", "--resume", str(tmp_path / "nowhere"), "--config", "pong/lstm"]) == 2
    assert "is no run folder" in capfd.readouterr().err and not (tmp_path / "nowhere").exists()


def test_resuming_a_finished_run_says_so(ppo_copy, capsys):
    before = (ppo_copy / "model.zip").stat().st_mtime_ns
    assert main(["train", "--resume", str(ppo_copy)]) == 0
    assert "is over: finished after 512 of 512 steps" in capsys.readouterr().out
    assert (ppo_copy / "model.zip").stat().st_mtime_ns == before


def test_a3c_runs_and_resumes(tmp_path):
    folder = tmp_path / "a3c"
    assert main([*A3C_, "--run_dir", str(folder), "--total_timesteps", "1600"]) == 0
    first = A3C.load(folder / "model.zip")
    assert main(["train", "--resume", str(folder), "--total_timesteps", "3200", "--algo.workers", "2"]) == 0
    second = A3C.load(folder / "model.zip")
    assert (first.workers, second.workers) == (1, 2)
    assert (first.num_timesteps, second.num_timesteps) == (1600, 3200)
    assert second._n_updates == 2 * first._n_updates
    steps = read_episodes(folder / "episodes.csv")[:, 0]
    assert steps.max() > 1600 > steps.min()
    assert (folder / "learning_curve.png").is_file()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--core.name", "gru"], "with core.name gru: that run has core.name lstm"),
        (["--core.hidden_size", "9"], "with core.hidden_size 9: that run has core.hidden_size 8"),
        (["--env.id", "CartPole-v1"], "that run has env.id relmem/MaskedCartPole-v0"),
        (["--algo.name", "a3c"], "that run has algo.name ppo"),
        (["--run_dir", "elsewhere"], "--resume goes on in the run's own folder: it takes no --run_dir"),
        (["--config", "pong/lstm"], "(only total_timesteps, device, precision, threads, "),
    ],
)
def test_resume_refuses_to_make_another_run_of_it(ppo_run, flags, sentence, capfd):
    assert main(["train", "--resume", str(ppo_run), *flags]) == 2
    assert sentence in capfd.readouterr().err


@pytest.mark.parametrize(
    ("core", "env_id", "sentence"),
    [
        ("gru", "relmem/MaskedCartPole-v0", "holds the core 'gru'"),
        ("lstm", "CartPole-v1", "does not go with relmem/MaskedCartPole-v0: Observation spaces do not match"),
        ("lstm", "relmem/RepeatFirst-v0", "does not go with relmem/MaskedCartPole-v0: Observation spaces do not match"),
    ],
)
def test_resume_refuses_a_checkpoint_of_something_else(ppo_copy, core, env_id, sentence, capfd):
    other = {"policy_kwargs": {"core": core, "core_kwargs": {"hidden_size": 8}}, "n_steps": 4}
    MemoryPPO("MemoryPolicy", make_vec_env(env_id, 4), **other).save(ppo_copy / "model.zip")
    assert main(["train", "--resume", str(ppo_copy), "--total_timesteps", "1024"]) == 2
    assert sentence in one_sentence(capfd)


def test_resume_refuses_a_broken_or_missing_checkpoint(ppo_copy, capfd):
    (ppo_copy / "model.zip").write_bytes(b"no zip")
    assert main(["train", "--resume", str(ppo_copy), "--total_timesteps", "1024"]) == 2
    (ppo_copy / "model.zip").unlink()
    assert main(["train", "--resume", str(ppo_copy), "--total_timesteps", "1024"]) == 2
    passed_over, broken, missing = (line for line in capfd.readouterr().err.splitlines() if not line.endswith(" ..."))
    assert "model.zip" in passed_over and broken == missing and "holds no checkpoint to continue from" in missing


def test_a_failed_save_leaves_the_old_file(tmp_path):
    class Model:
        def save(self, file):
            file.write(b"half")
            raise OSError("disk full")

    path = tmp_path / "model.zip"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        save(Model(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.zip"] and path.read_bytes() == b"old"


def test_only_the_newest_checkpoints_are_kept(tmp_path, checkpoint_at_once):
    env = make_vec_env("CartPole-v1", 2)
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    MemoryPPO("MemoryPolicy", env, n_steps=4).learn(32, watch(folder, 32))
    names = sorted(path.name for path in folder.checkpoints.iterdir())
    assert names == [f"step_{step:012d}.zip" for step in (8, 16, 24)]
    assert MemoryPPO.load(folder.checkpoints / names[-1]).num_timesteps == 24


def test_progress_without_a_terminal_is_a_line_now_and_then(tmp_path, capsys):
    callback = watch(RunFolder(tmp_path), 128)
    callback.progress.seconds = 0.0
    MemoryPPO("MemoryPolicy", make_vec_env("CartPole-v1", 2), n_steps=64).learn(128, callback)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("128 of 128 steps, ") and lines[-1].endswith("0:00:00 left")
    assert "return -" in lines[0] and "return -" not in lines[-1]


def test_no_time_is_left_beyond_the_end(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress(1000, "steps", seconds=0.0)
    progress.start(0, "")
    now = 100.0
    progress.update(2000)
    progress.close()
    assert capsys.readouterr().out.endswith(" 0:00:00 left\n")


def test_time_left_of_a_run_that_has_not_moved(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress(10**9, "steps", seconds=0.0)
    progress.start(0, "")
    now = 1000.0
    progress.update(0)
    progress.close()
    assert "0 of 1,000,000,000 steps" in capsys.readouterr().out


def test_time_left_may_be_days_and_ends_with_the_limit(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for limit in (None, 600.0):
        now, progress = 0.0, Progress(1000, "steps", seconds=0.0, limit=limit)
        progress.start(100, "")
        now = 240.0
        progress.update(101)
        progress.close()
    free, limited = capsys.readouterr().out.splitlines()
    assert free.endswith("2 days, 11:56:00 left") and limited.endswith("0:06:00 left")


class Countdown(gymnasium.Env):
    """An episode of so many steps, with reward 1 for each."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, dtype=np.float32), 1.0, self.t == self.steps, False, {}


def acts_by(predict) -> SimpleNamespace:
    return SimpleNamespace(predict=predict, observation_space=Countdown.observation_space)


@pytest.mark.parametrize(("lengths", "seconds", "returns"), [((1, 2, 3), None, [1, 2, 3]), ((2, 10**9, 3), 20, [2, 3])])
def test_evaluation_takes_the_first_episode_of_each_environment_and_no_longer_than_it_may(
    lengths, seconds, returns, monkeypatch
):
    env = DummyVecEnv([partial(Countdown, steps) for steps in lengths])
    model = acts_by(lambda obs, state, starts, deterministic: (np.zeros(len(obs), dtype=int), None))
    monkeypatch.setattr(time, "monotonic", partial(next, itertools.count()))  # a clock that goes on when it is read
    result = evaluate(model, env, seconds=seconds)
    np.testing.assert_array_equal(result.returns, returns)
    assert result.complete == (seconds is None)


def test_evaluation_plays_the_most_probable_actions_with_memory():
    calls = []

    def predict(obs, state, starts, deterministic):
        calls.append((state, starts.tolist(), deterministic))
        return np.zeros(2, dtype=int), len(calls)

    evaluate(acts_by(predict), DummyVecEnv([partial(Countdown, steps) for steps in (1, 3)]))
    assert calls == [(None, [True, True], True), (1, [True, False], True), (2, [True, False], True)]


def test_running_mean():
    np.testing.assert_allclose(running_mean(np.array([3.0, 1.0, 2.0])), [3.0, 2.0, 2.0])
    values = np.random.default_rng(0).normal(size=250)
    np.testing.assert_allclose(running_mean(values)[249], values[150:].mean())
    assert running_mean(np.array([])).shape == (0,)
