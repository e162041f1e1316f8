"""The command line's options: merging, checking, and what is said about mistakes."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from relmem.agents import A3C, MemoryPPO, registered_cores
from relmem.agents.cores.registry import core_options
from relmem.cli import main
from relmem.cli.config_files import shipped_configs
from relmem.cli.options import parse
from relmem.common.options import Count, fits, options_of
from relmem.common.values import write
from relmem.experiment import room

PLAIN = ["--core.name", "lstm", "--env.id", "CartPole-v1", "--env.n_envs", "2"]
A3C_PLAIN = [*PLAIN[:-2], "--algo.name", "a3c"]


def one_sentence(capfd) -> str:
    """What was said of a mistake: one line, beside words such as "preparing ..." where that takes long."""
    printed = capfd.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.endswith(" ...")]
    assert printed.out == "" and len(lines) == 1 and lines[0].startswith("relmem: "), printed
    return lines[0]


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_is_valid_by_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    invocation = parse(["--config", name])
    assert invocation.run_dir is None and invocation.resume is None


def test_the_experiments_that_should_be_there_are():
    pong = {f"pong/{name}" for name in ("stm", "rmc", "lstm", "gru", "stm_a3c", "lstm_a3c", "stm_released")}
    assert pong | {"cartpole/masked_lstm"} <= set(shipped_configs())


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 3\nenv: {frame_skip: 16, n_envs: 4}\ncore: {name: lstm, hidden_size: 32}\n")
    config = parse(["--config", str(file), "--env.n_envs", "6", "--core.hidden_size=48"]).config
    assert (config["seed"], config["total_timesteps"]) == (3, 1_000_000)
    env = {"id": "PongNoFrameskip-v4", "n_envs": 6, "frame_skip": 16}
    unchanged = {"last_action": False, "last_reward": False, "backend": "auto", "normalize": False}
    assert config.as_dict()["env"] == env | unchanged
    assert config.as_dict()["core"] == {"name": "lstm", "hidden_size": 48, "layers": 1, "residual": False}
    assert config.group("algo") == parse(PLAIN).config.group("algo")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("algo.learning_rate", "1e-3", 1e-3),
        ("algo.learning_rate", "lin_1e-3", "lin_1e-3"),
        ("algo.clip_range", "5E-2", 0.05),
        ("algo.gamma", ".5", 0.5),
        ("algo.target_kl", "null", None),
        ("algo.normalize_advantage", "no", False),
        ("total_timesteps", "2e6", 2_000_000),
        ("total_timesteps", "9007199254740993", 9007199254740993),  # to the last digit
        ("env.n_envs", "1.6e+1", 16),
        ("policy.net_arch", "[6e1, 4]", [60, 4]),
        ("env.kwargs", "{noise: 1e-3, deep: {list: [1e5, -2E-3]}}", {"noise": 0.001, "deep": {"list": [1e5, -0.002]}}),
        ("env.kwargs", '{level: "010", n: "1e-3"}', {"level": "010", "n": "1e-3"}),
        ("env.kwargs", "{a: yes, b: null, c: text}", {"a": True, "b": None, "c": "text"}),
        ("env.id", "minigrid:MiniGrid-MemoryS7-v0", "minigrid:MiniGrid-MemoryS7-v0"),
    ],
)
def test_the_same_text_means_the_same_in_a_file_and_on_a_flag_and_is_saved_as_the_same(key, text, value, tmp_path):
    file, plain = tmp_path / "mine.yaml", ["--env.id", "CartPole-v1"]
    group, _, name = key.rpartition(".")
    file.write_text(f"{group}: {{{name}: {text}}}\n" if group else f"{name}: {text}\n")
    configs = [parse(["--config", str(file)]).config, parse([*plain, f"--{key}", text]).config]
    assert [config[key] for config in configs] == [value, value]
    assert type(configs[0][key]) is type(configs[1][key]) is type(value)
    (tmp_path / "saved.yaml").write_text(write(configs[1].as_dict()))
    assert parse(["--config", str(tmp_path / "saved.yaml")]).config.flat() == configs[1].flat()


@pytest.mark.parametrize(
    "key", ["algo.normalize_advantage", "seed", "env.id", "total_timesteps", "core.name", "algo.n_steps", "precision"]
)
def test_null_is_for_options_that_may_be_left_open(key, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    group, _, name = key.rpartition(".")
    Path("mine.yaml").write_text(f"{group}: {{{name}: null}}\n" if group else f"{name}: null\n")
    for flags in (["--config", "mine.yaml"], [*PLAIN, f"--{key}", "null"]):
        assert main(["train", *flags]) == 2
        assert re.search(rf"{key} must be .*got null|unknown core 'null'", one_sentence(capfd))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_resolved_config_holds_no_nulls_but_those_that_are_meant(tmp_path):
    for flags in (PLAIN, ["--config", "pong/stm"], ["--config", "tasks/copy_stm"]):
        config = parse(flags).config
        assert "null" not in write(config.as_dict())
    config = parse(["--task.name", "copy", "--training.max_grad_value", "null"]).config
    (tmp_path / "saved.yaml").write_text(write(config.as_dict()))
    assert parse(["--config", str(tmp_path / "saved.yaml")]).config["training.max_grad_value"] is None


def test_another_core_drops_the_core_options_of_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("core: {name: lstm, hidden_size: 32}\nalgo: {n_steps: 16}\n")
    config = parse(["--config", str(file), "--core.name", "gru"]).config
    assert config.group("core") == parse([*PLAIN, "--core.name", "gru"]).config.group("core")
    assert config["algo.n_steps"] == 16
    assert parse(["--config", str(file), "--core.name", "lstm"]).config["core.hidden_size"] == 32


def test_naming_the_default_core_drops_nothing(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("core: {item_size: 12}\n")
    assert parse(["--config", str(file), "--core.name", "stm"]).config["core.item_size"] == 12


def test_another_algorithm_drops_the_algorithm_options_of_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("core: {name: lstm, hidden_size: 32}\nenv: {id: CartPole-v1, n_envs: 4}\nalgo: {n_steps: 16}\n")
    config = parse(["--config", str(file), "--algo.name", "a3c", "--algo.workers", "2"]).config
    a3c = parse(["--env.id", "CartPole-v1", "--algo.name", "a3c", "--algo.workers", "2"]).config
    assert config.group("algo") == a3c.group("algo") and config.group("env") == a3c.group("env")
    assert (config["core.name"], config["core.hidden_size"]) == ("lstm", 32)


@pytest.mark.parametrize(("algorithm", "owner"), [("ppo", MemoryPPO), ("a3c", A3C)])
def test_every_option_of_an_algorithm_is_one_of_the_command_line(algorithm, owner):
    declared, config = options_of(owner), parse(["--env.id", "CartPole-v1", "--algo.name", algorithm]).config
    options = config.group("algo")
    assert {"learning_rate", "gamma", "clip_reward"} <= set(options) < set(declared)
    assert all(value == declared[name].default for name, value in options.items())


@pytest.mark.parametrize("core", registered_cores())
def test_every_option_of_a_core_is_explained(core, capsys):
    assert main(["train", "--core.name", core, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in core_options(core):
        assert re.search(rf"--core\.{option} (?!\()\S", text), option


def test_help_shows_the_options_of_the_chosen_core_and_algorithm(capsys):
    assert main(["train", "--core.name", "lstm", "--algo.name", "a3c", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--core.hidden_size" in text and "number of cells H" in text
    assert "--algo.t_max" in text and "--algo.n_steps" not in text and "--env.n_envs" not in text
    assert main(["--help"]) == 0
    assert "  train " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--core.name", "lstmm"], "unknown core 'lstmm': did you mean 'lstm'?"),
        (["--core.hiden_size", "8"], "unknown option of core 'lstm' 'hiden_size': did you mean 'hidden_size'?"),
        (["--core.hidden_size", "-3"], "hidden_size must be an integer of at least 1, got -3"),
        (["--core.hidden_size", "nan"], "core.hidden_size must be an integer of at least 1, got 'nan'"),
        (["--core.name", "stm", "--core.preset", "relesed"], "did you mean 'released'?"),
        (["--core.name", "stm", "--core.item_size", "-3"], "item_size must be an integer of at least 1, got -3"),
        (["--algo.name", "poo"], "unknown algorithm 'poo': did you mean 'ppo'?"),
        (["--algo.nsteps", "4"], "unknown option of algorithm 'ppo' 'nsteps': did you mean 'n_steps'?"),
        (["--algo.learning_rate", "nan"], "a schedule such as lin_3e-4, got 'nan'"),
        (["--algo.learning_rate", "-1"], "learning_rate must be a number of at least 0"),
        (["--algo.clip_range", "lin_x"], "a schedule such as lin_3e-4, got 'lin_x'"),
        (["--algo.gamma", "1.5"], "algo.gamma must be a number from 0 to 1, got 1.5"),
        (["--algo.n_steps", "0"], "algo.n_steps must be an integer of at least 1, got 0"),
        (["--algo.n_steps", "16", "--algo.batch_size", "12"], "batch_size 12 does not cut 2 environments x 16 steps"),
        (["--env.n_envs", "0"], "env.n_envs must be an integer of at least 1, got 0"),
        (["--env.n_envs"], "env.n_envs needs a value"),
        (["--env.frame_skip", "-1"], "env.frame_skip must be an integer of at least 0 or null, got -1"),
        (["--env.frameskip", "4"], "unknown option of the environment 'frameskip': did you mean 'frame_skip'?"),
        (["--nonsense"], "unknown option 'nonsense'"),
        (["--threads", "99999"], "threads must be an integer from 1 to"),
        (["--frame_skip", "4"], "unknown option 'frame_skip': did you mean 'env.frame_skip'?"),
        (["--env.id", "PongNoFrameskp-v4"], "unknown environment 'PongNoFrameskp-v4': did you mean"),
        (["--env.image_size", "84"], "image_size is for Atari games"),
        (["--env.kwargs", '{"lenght": 3}'], "cannot make 'CartPole-v1': "),
        (["--env.kwargs", "3"], "env.kwargs must be a mapping or null, got 3"),
        (["--env.id", "ALE/Pong-v5", "--env.kwargs", '{"mode": 1}'], "'ALE/Pong-v5' is an Atari game, which takes no"),
        (["--policy.features", "natur"], "unknown policy.features 'natur': did you mean 'nature'?"),
        (["--policy.features", "nature"], "convolutional features need image observations"),
        (
            ["--policy.net_arch", "[64,0]"],
            "policy.net_arch must be a list such as [64, 64], each of it an integer",
        ),
        (["--total_timesteps", "many"], "total_timesteps must be an integer of at least 1, got 'many'"),
        (["--total_timestep", "9"], "unknown option 'total_timestep': did you mean 'total_timesteps'?"),
        (["--seed", "-1"], "seed must be an integer from 0 to 2147483647, got -1"),
        (["--precision", "bf15"], "unknown precision 'bf15': did you mean 'bf16'"),
        (["--device", "gpuu"], "unknown device 'gpuu': choose auto, cpu, cuda or cuda:N"),
        (["--config", "pong/lstmm"], "unknown config 'pong/lstmm': did you mean 'pong/lstm'?"),
        (["--config"], "config needs a value"),
        (["--run_dir", "/dev/null/run"], "cannot make run folder '/dev/null/run': Not a directory"),
        (["more"], "unrecognized argument 'more'"),
        (["pong/lstm"], "unrecognized argument 'pong/lstm': did you mean --config pong/lstm?"),
        (["--config", ""], "config needs a value, got ''"),
        (["--resume="], "resume needs a value, got ''"),
        (["--run_dir", ""], "run_dir needs a value, got ''"),
        (["--core", "rmc"], "unknown option 'core': did you mean 'core.name'?"),
        (["--task", "copy"], "unknown option 'task': did you mean 'task.name'?"),
        (["--seed", str(2**31)], "seed must be an integer from 0 to 2147483647, got 2147483648"),
        (
            ["--core.mlp_layers", "4"],
            "core 'lstm' has no option 'mlp_layers', which belongs to rmc: choose it by core.name",
        ),
        (["--resume", "nowhere"], "'nowhere' is no run folder"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(flags, sentence, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *PLAIN, *flags]) == 2
    assert sentence in one_sentence(capfd)
    assert list(tmp_path.iterdir()) == []  # nothing was written


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--env.n_envs", "4"], "unknown option of the environment 'n_envs'"),
        (["--algo.workers", "0"], "algo.workers must be an integer of at least 1 or null, got 0"),
        (["--algo.optimizer", "sgd"], "unknown algo.optimizer 'sgd': choose from adam, rmsprop"),
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
        (
            "core: {name: lstm, hidden_size: big}",
            "mine.yaml: core.hidden_size must be an integer of at least 1, got 'big'",
        ),
        (
            "core: {name: lstm, hidden_size: 4.5}",
            "mine.yaml: core.hidden_size must be an integer of at least 1, got 4.5",
        ),
        ("env: {n_envs: -4}", "mine.yaml: env.n_envs must be an integer of at least 1, got -4"),
        ("algo: {target_kl: .nan}", "mine.yaml: algo.target_kl must be a number above 0 or null, got nan"),
        ("core: lstm", "config key 'core' must hold options, got 'lstm'"),
        ("env: CartPole-v1", "config key 'env' must hold options, got 'CartPole-v1'"),
        (
            "enviroment: {id: CartPole-v1}",
            "unknown config key 'enviroment': did you mean 'env'?",
        ),
        ("task:", "config key 'task' must hold options, got null"),
        ("task: {bits: 4}", "mine.yaml: task.name is missing: choose from associative_retrieval, "),
        ("# nothing", "must be a mapping of options, got null"),
        ("seed: 1\ncore: {name: lstm}\nseed: 2", "the key 'seed' is there twice, again on line 3"),
        ("core: {name: lstm, hidden_size: 3, name: gru}", "the key 'name' is there twice, again on line 1"),
        ("core: {name: [lstm]}", "core.name must be text, got ['lstm']"),
        ("- a list", "must be a mapping of options"),
        ("a: b: c", "cannot read config"),
    ],
)
def test_a_mistake_in_a_config_file_names_the_file(text, sentence, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    assert main(["train", "--config", "mine.yaml"]) == 2
    assert sentence in one_sentence(capfd)


def test_a_config_may_use_anchors(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("core: &base {name: lstm, hidden_size: 3}\npolicy: {net_arch: [4]}\n")
    assert parse(["--config", str(file)]).config["core.hidden_size"] == 3
    file.write_text("core: {<<: {name: lstm, hidden_size: 3}, hidden_size: 5}\n")
    assert parse(["--config", str(file)]).config["core.hidden_size"] == 5


@pytest.mark.parametrize("flags", [[], ["--seed", "3"], ["--core.name", "lstm", "--algo.n_steps", "8"]])
def test_a_run_of_no_experiment_is_refused(flags, capfd):
    assert main(["train", *flags]) == 2
    assert "name an experiment: a --config such as pong/stm" in one_sentence(capfd)


def test_an_unknown_command(capfd):
    assert main(["trian"]) == 2
    assert re.search("trian.*did you mean 'train'", one_sentence(capfd))


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("lr", "env.last_reward' or 'algo.learning_rate"),
        ("learning-rate", "algo.learning_rate"),
        ("ent", "algo.ent_coef"),
        ("n_env", "env.n_envs"),
        ("batchsize", "algo.batch_size"),
        ("hidden", "core.hidden_size"),
        ("timesteps", "total_timesteps"),
        ("arch", "policy.net_arch"),
        ("cfg", "config"),
    ],
)
def test_the_option_that_is_meant_is_named(flag, meant, capfd):
    assert main(["train", *PLAIN, f"--{flag}", "1"]) == 2
    assert re.search(f"unknown option '{flag}': did you mean '{meant}'", one_sentence(capfd))


def test_a_module_that_is_not_there_is_named(tmp_path, monkeypatch, capfd):
    (tmp_path / "broken_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("no_such_module", "broken_module"):
        assert main(["train", *PLAIN, "--core.name", f"{module}:mine"]) == 2
        assert re.search(f"{module}:mine.* import fails", one_sentence(capfd))
    (tmp_path / "idle_module.py").touch()
    assert main(["train", *PLAIN, "--core.name", "idle_module:mine"]) == 2
    assert re.search("idle_module.*mine", one_sentence(capfd))


def test_a_list_may_be_any_sequence_or_array_of_one_dimension():
    for value in ([2, 3], (2,), range(1, 3), np.array([2, 3]), []):
        assert fits(Sequence[Count], value)
    for value in ([0], "23", np.array([[2]]), np.array(2), np.array([2.5]), {2: 3}, 2, None):
        assert not fits(Sequence[Count], value)


TASK = ["--task.name", "copy"]


@pytest.mark.parametrize(
    "flags",
    [
        [*PLAIN, "--env.n_envs", "1000000", "--core.name", "stm"],
        [*PLAIN, "--env.id", "ALE/Pong-v5", "--env.n_envs", "1000000"],
        [*PLAIN, "--env.id", "ALE/Pong-v5", "--env.image_size", "[100000, 1000000]"],
        [*PLAIN, "--core.name", "stm", "--core.queries", "100000", "--env.n_envs", "32"],
        [*PLAIN, "--core.hidden_size", "1000000"],
        [*PLAIN, "--policy.net_arch", "[1000000, 1000000]"],
        [*PLAIN, "--algo.n_steps", "1000000000000"],
        [*A3C_PLAIN, "--algo.workers", "100000"],
        [*A3C_PLAIN, "--algo.envs_per_worker", "1000000000"],
        [*TASK, "--training.batch_size", "1000000000000"],
        [*TASK, "--core.queries", "100000", "--training.batch_size", "64"],
    ],
)
def test_what_is_larger_than_the_machine_is_refused_at_once(flags, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(room, "available_memory", lambda: 20e9)
    begin = time.process_time()  # that others compute too does no harm
    assert main(["train", *flags]) == 2
    assert re.search("GB of memory.* available", one_sentence(capfd)) and time.process_time() - begin < 10
    assert list(tmp_path.iterdir()) == []


def test_there_is_a_figure_of_the_memory_where_linux_gives_one():
    available = room.available_memory()
    assert available is None or 1e6 < available < 1e15
