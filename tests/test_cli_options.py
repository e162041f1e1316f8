"""The command line's options: merging, checking, and what is said about mistakes."""

import inspect
import re
from pathlib import Path

import pytest
import yaml
from stable_baselines3.common.utils import LinearSchedule

from relmem.agents import A3C, MemoryPPO, registered_cores
from relmem.agents.cores.registry import core_options
from relmem.cli import main
from relmem.cli.config import ALGORITHMS, A3CConfig, EnvConfig, PPOConfig, VecEnvConfig, schedule
from relmem.cli.config_files import config_name, find_config, shipped_configs
from relmem.cli.options import parse


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_is_valid_by_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    invocation = parse(["--config", name])
    assert invocation.name == name.replace("/", "_")
    assert invocation.run_dir is None and invocation.resume is None


def test_the_experiments_that_should_be_there_are():
    pong = {f"pong/{name}" for name in ("stm", "rmc", "lstm", "gru", "stm_a3c", "lstm_a3c", "stm_released")}
    assert pong | {"cartpole/masked_lstm"} <= set(shipped_configs())


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 3\nenv: {frame_skip: 16, n_envs: 4}\ncore: {name: lstm, hidden_size: 32}\n")
    config = parse(["--config", str(file), "--env.n_envs", "6", "--core.hidden_size=48"]).config
    assert (config.seed, config.total_timesteps) == (3, 1_000_000)
    assert config.env == VecEnvConfig(frame_skip=16, n_envs=6)
    assert config.core == {"name": "lstm", "hidden_size": 48}
    assert config.algo == PPOConfig()


def test_numbers_are_read_as_yaml_writes_them(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("core: {name: lstm}\nalgo: {learning_rate: 1e-3, target_kl: 1e-2}\n")  # PyYAML: both are strings
    algo = parse(["--config", str(file), "--algo.clip_range", "5e-2"]).config.algo
    assert (algo.learning_rate, algo.target_kl, algo.clip_range) == (1e-3, 1e-2, 5e-2)
    assert all(type(value) in (int, float, str, bool, type(None)) for value in vars(algo).values())


def test_another_core_drops_the_core_options_of_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("core: {name: lstm, hidden_size: 32}\nalgo: {n_steps: 16}\n")
    config = parse(["--config", str(file), "--core.name", "gru"]).config
    assert config.core == parse(["--core.name", "gru"]).config.core
    assert config.algo == PPOConfig(n_steps=16)
    assert parse(["--config", str(file), "--core.name", "lstm"]).config.core["hidden_size"] == 32


def test_naming_the_default_core_drops_nothing(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("core: {item_size: 12}\n")
    assert parse(["--config", str(file), "--core.name", "stm"]).config.core["item_size"] == 12


def test_another_algorithm_drops_the_algorithm_options_of_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("core: {name: lstm, hidden_size: 32}\nenv: {id: CartPole-v1, n_envs: 4}\nalgo: {n_steps: 16}\n")
    config = parse(["--config", str(file), "--algo.name", "a3c", "--algo.workers", "2"]).config
    assert config.algo == A3CConfig(workers=2)
    assert config.env == EnvConfig(id="CartPole-v1")
    assert config.core == {"name": "lstm", "hidden_size": 32}


def test_a_saved_config_reads_back_as_the_same(tmp_path):
    config = parse(["--core.name", "lstm", "--algo.learning_rate", "lin_1e-5", "--env.image_size", "[80,64]"]).config
    (tmp_path / "saved.yaml").write_text(yaml.safe_dump(config.as_dict()))
    assert parse(["--config", str(tmp_path / "saved.yaml")]).config == config


@pytest.mark.parametrize(("name", "algorithm"), [("ppo", MemoryPPO), ("a3c", A3C)])
def test_options_and_defaults_are_those_of_the_algorithm(name, algorithm):
    not_options = {
        *("self", "policy", "env", "env_kwargs", "policy_kwargs", "_init_setup_model"),
        *("precision", "seed", "device", "verbose", "tensorboard_log", "stats_window_size"),
    }
    parameters = inspect.signature(algorithm.__init__).parameters
    expected = {key: p.default for key, p in parameters.items() if key not in not_options}
    assert {key: value for key, value in vars(ALGORITHMS[name].options()).items() if key != "name"} == expected


def test_schedules():
    assert schedule("x", 3e-4) == 3e-4
    assert schedule("x", "3e-4") == 3e-4
    assert schedule("x", None) is None
    falling = schedule("x", "lin_4.0")
    assert isinstance(falling, LinearSchedule)
    assert [falling(remaining) for remaining in (1.0, 0.25, 0.0)] == [4.0, 1.0, 0.0]


def test_run_names(tmp_path):
    assert config_name(find_config("configs/pong/lstm.yaml")) == "pong_lstm"
    assert config_name(tmp_path / "mine.yaml") == "mine"
    assert parse(["--core.name", "gru"]).name == "ppo_gru"


@pytest.mark.parametrize("core", registered_cores())
def test_every_option_of_a_core_is_explained(core, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--core.name", core, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option in core_options(core):
        assert re.search(rf"--core\.{option} \S+ (?!\(type: )", text), option


def test_help_shows_the_options_of_the_chosen_core_and_algorithm(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--core.name", "lstm", "--algo.name", "a3c", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--core.hidden_size" in text and "number of cells H" in text
    assert "--algo.t_max" in text and "--algo.n_steps" not in text and "--env.n_envs" not in text
    main(["--help"])
    assert "usage: relmem train" in capsys.readouterr().out


PLAIN = ["--core.name", "lstm", "--env.id", "CartPole-v1", "--env.n_envs", "2"]
A3C_PLAIN = [*PLAIN[:-2], "--algo.name", "a3c"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--core.name", "lstmm"], "unknown core 'lstmm': did you mean 'lstm'?"),
        (["--core.hiden_size", "8"], "unknown option of core 'lstm' 'hiden_size': did you mean 'hidden_size'?"),
        (["--core.hidden_size", "-3"], "hidden_size must be an integer of at least 1, got -3"),
        (["--core.hidden_size", "nan"], "core.hidden_size must be an integer, got 'nan'"),
        (["--core.name", "stm", "--core.preset", "relesed"], "did you mean 'released'?"),
        (["--core.name", "stm", "--core.item_size", "-3"], "item_size must be an integer of at least 1, got -3"),
        (["--algo.name", "poo"], "unknown algorithm 'poo': did you mean 'ppo'?"),
        (["--algo.nsteps", "4"], "unknown option of algorithm 'ppo' 'nsteps': did you mean 'n_steps'?"),
        (["--algo.learning_rate", "nan"], "a schedule such as lin_2.5e-4, got 'nan'"),
        (["--algo.learning_rate", "-1"], "learning_rate must be a number of at least 0"),
        (["--algo.clip_range", "lin_x"], "a schedule such as lin_2.5e-4, got 'lin_x'"),
        (["--algo.gamma", "1.5"], "algo.gamma must be a number from 0 to 1, got '1.5'"),
        (["--algo.n_steps", "0"], "algo.n_steps must be an integer of at least 1, got '0'"),
        (["--algo.n_steps", "16", "--algo.batch_size", "12"], "batch_size 12 does not cut 2 environments x 16 steps"),
        (["--env.n_envs", "0"], "env.n_envs must be an integer of at least 1, got '0'"),
        (["--env.n_envs"], "env.n_envs needs a value"),
        (["--env.frame_skip", "-1"], "env.frame_skip must be an integer of at least 0 or null, got '-1'"),
        (["--env.frameskip", "4"], "unknown option of the environment 'frameskip': did you mean 'frame_skip'?"),
        (["--frame_skip", "4"], "unknown option 'frame_skip': did you mean 'env.frame_skip'?"),
        (["--env.id", "PongNoFrameskp-v4"], "unknown environment 'PongNoFrameskp-v4': did you mean"),
        (["--env.image_size", "84"], "image_size is for Atari games"),
        (["--env.kwargs", '{"lenght": 3}'], "cannot make 'CartPole-v1': "),
        (["--env.kwargs", "3"], "env.kwargs must be a mapping or null, got '3'"),
        (["--env.id", "ALE/Pong-v5", "--env.kwargs", '{"mode": 1}'], "'ALE/Pong-v5' is an Atari game, which takes no"),
        (["--policy.features", "natur"], "unknown features 'natur': did you mean 'nature'?"),
        (["--policy.features", "nature"], "convolutional features need image observations"),
        (
            ["--policy.net_arch", "[64,0]"],
            "policy.net_arch must be a list such as [64,64], each of it an integer",
        ),
        (["--total_timesteps", "many"], "total_timesteps must be an integer of at least 1, got 'many'"),
        (["--total_timestep", "9"], "unknown option 'total_timestep': did you mean 'total_timesteps'?"),
        (["--seed", "-1"], "seed must be an integer of at least 0, got '-1'"),
        (["--precision", "bf15"], "precision must be one of auto, fp32, bf16, got 'bf15'"),
        (["--device", "gpuu"], "unknown device 'gpuu': choose auto, cpu, cuda or cuda:N"),
        (["--config", "pong/lstmm"], "unknown config 'pong/lstmm': did you mean 'pong/lstm'?"),
        (["--config"], "config needs a value"),
        (["--run_dir", "/dev/null/run"], "cannot make run folder '/dev/null/run': Not a directory"),
        (["more"], "unrecognized arguments: more"),
        (["pong/lstm"], "unrecognized argument 'pong/lstm': did you mean --config pong/lstm?"),
        (["--config", ""], "config needs a value, got ''"),
        (["--resume="], "resume needs a value, got ''"),
        (["--run_dir", ""], "run_dir needs a value, got ''"),
        (["--core", "rmc"], "unknown option 'core': did you mean 'core.name'?"),
        (["--task", "copy"], "unknown option 'task': did you mean 'task.name'?"),
        (["--seed", str(2**31)], "seed must be at most 2147483647, got 2147483648"),
        (["--core.slots", "4"], "core 'lstm' has no option 'slots', which belongs to rmc: choose it by core.name"),
        (["--resume", "nowhere"], "'nowhere' is no run folder"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(flags, sentence, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *PLAIN, *flags]) == 2
    printed = capfd.readouterr()
    assert sentence in printed.err and printed.err.startswith("relmem: ")
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []  # nothing was written


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--env.n_envs", "4"], "unknown option of the environment 'n_envs'"),
        (["--algo.workers", "0"], "algo.workers must be an integer of at least 1 or null, got '0'"),
        (["--algo.optimizer", "sgd"], "algo.optimizer must be one of adam, rmsprop, got 'sgd'"),
        (["--device", "meta"], "unknown device 'meta': choose auto, cpu, cuda or cuda:N"),
    ],
)
def test_mistakes_with_a3c(flags, sentence, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *A3C_PLAIN, *flags]) == 2
    assert sentence in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("env: {frameskip: 4}", "mine.yaml: unknown config key of the environment 'frameskip': did you mean"),
        ("totaltimesteps: 4", "mine.yaml: unknown config key 'totaltimesteps': did you mean 'total_timesteps'?"),
        ("core: {name: lstm, hidden_size: big}", "mine.yaml: core.hidden_size must be an integer, got 'big'"),
        ("core: {name: lstm, hidden_size: 4.5}", "mine.yaml: core.hidden_size must be an integer, got 4.5"),
        ("env: {n_envs: -4}", "mine.yaml: env.n_envs must be an integer of at least 1, got -4"),
        ("algo: {target_kl: .nan}", "mine.yaml: algo.target_kl must be a number above 0 or null, got nan"),
        ("core: lstm", "config key 'core' must hold options such as 'name', got 'lstm'"),
        ("env: CartPole-v1", "config key 'env' must hold options such as 'id', got 'CartPole-v1'"),
        (
            "enviroment: {id: CartPole-v1}",
            "unknown config key 'enviroment': did you mean 'env', which holds 'id' and others?",
        ),
        ("task:", "config key 'task' must hold options such as 'name', got None"),
        ("task: {bits: 4}", "mine.yaml: task.name is missing: choose from associative_retrieval, "),
        ("# nothing", "must be a mapping of options, got None"),
        ("seed: 1\ncore: {name: lstm}\nseed: 2", "the key 'seed' is there twice, again on line 3"),
        ("core: {name: lstm, hidden_size: 3, name: gru}", "the key 'name' is there twice, again on line 1"),
        ("core: {name: [lstm]}", "unknown core '['lstm']'"),
        ("- a list", "must be a mapping of options"),
        ("a: b: c", "cannot read config"),
    ],
)
def test_a_mistake_in_a_config_file_names_the_file(text, sentence, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    assert main(["train", "--config", "mine.yaml"]) == 2
    printed = capfd.readouterr().err
    assert sentence in printed and len(printed.splitlines()) == 1


def test_whole_numbers_may_have_an_exponent(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("total_timesteps: 2e6\nenv: {n_envs: 1.6e+1}\n")
    config = parse(["--config", str(file)]).config
    assert (config.total_timesteps, config.env.n_envs) == (2_000_000, 16)
    config = parse(["--total_timesteps", "1e5", "--seed=1e1", "--algo.learning_rate", "1e-3"]).config
    assert (config.total_timesteps, config.seed, config.algo.learning_rate) == (100_000, 10, 1e-3)


def test_large_integers_are_kept_to_the_last_digit():
    assert parse(["--total_timesteps", "9007199254740993"]).config.total_timesteps == 9007199254740993


def test_arguments_of_an_environment_are_taken_as_they_are(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text('env: {kwargs: {level: "010", size: [1, "2"], deep: {key: "no"}}}\n')
    expected = {"level": "010", "size": [1, "2"], "deep": {"key": "no"}}
    assert parse(["--config", str(file)]).config.env.kwargs == expected
    assert parse(["--env.kwargs", '{"level": "010", "n": 3}']).config.env.kwargs == {"level": "010", "n": 3}


def test_a_config_may_use_anchors(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("core: &base {name: lstm, hidden_size: 3}\npolicy: {net_arch: [4]}\n")
    assert parse(["--config", str(file)]).config.core == {"name": "lstm", "hidden_size": 3}
    file.write_text("core: {<<: {name: lstm, hidden_size: 3}, hidden_size: 5}\n")
    assert parse(["--config", str(file)]).config.core == {"name": "lstm", "hidden_size": 5}


def test_nothing_asked_for(capfd):
    assert main(["train"]) == 2
    assert "name an experiment: a --config such as pong/stm" in capfd.readouterr().err


def test_an_unknown_command(capfd):
    assert main(["trian"]) == 2
    assert "unknown command 'trian': choose from train" in capfd.readouterr().err
