"""The commands that list what there is."""

import json

import pytest

from relmem.agents.cores import make_core, registered_cores
from relmem.cli import main
from relmem.cli.config_files import shipped_configs
from relmem.cli.listing import chosen, summary


def listed(capsys, *argv):
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_cores_with_their_sizes_and_what_a_step_costs(capsys):
    found = {core["name"]: core for core in listed(capsys, "cores")}
    assert list(found) == sorted(registered_cores())
    assert all(core["microseconds"] > 0 and core["about"] for core in found.values())
    gru = make_core("gru", 256)
    assert found["gru"]["parameters"] == sum(p.numel() for p in gru.parameters()) and found["gru"]["state"] == 256
    assert main(["cores", "gru"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["core", "parameters", "state"] and table[1].split()[:3] == ["gru", "394,752", "256"]
    assert "min_gru" not in "".join(table)  # a core's name stands for that core alone


def test_configs_with_what_they_train(capsys):
    found = {config["name"]: config for config in listed(capsys, "configs")}
    assert list(found) == shipped_configs() and all(config["about"] for config in found.values())
    assert found["pong/stm_a3c"] | {"about": ""} == {
        "name": "pong/stm_a3c", "on": "PongNoFrameskip-v4", "core": "stm", "by": "a3c", "length": 3_000_000,
        "unit": "steps", "about": "",
    }  # fmt: skip
    assert main(["configs", "memory"]) == 0
    assert "memory/tmaze" in (text := capsys.readouterr().out) and "pong" not in text


def test_environments_of_every_installed_package(capsys):
    found = {env["id"]: env for env in listed(capsys, "envs")}
    assert found["CartPoleNoVel-v1"] == {"id": "CartPoleNoVel-v1", "package": "relmem", "max_steps": 500}
    assert {found[id]["package"] for id in ("ALE/Pong-v5", "CartPole-v1")} == {"ale_py", "gymnasium"}
    assert main(["envs"]) == 0
    overview = capsys.readouterr().out
    assert "relmem/TMaze-v0" in overview and " of ale_py, such as " in overview and "ALE/Pong-v5" not in overview
    assert main(["envs", "pong-v5"]) == 0 and "ALE/Pong-v5" in capsys.readouterr().out


def test_tasks_with_their_trivial_levels(capsys):
    (parity,) = listed(capsys, "tasks", "parity")
    assert (parity["metric"], parity["higher_is_better"], parity["trivial"]) == ("accuracy", True, {"guessing": 0.5})


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["cores", "lsmt"], "unknown core 'lsmt': did you mean 'lstm'?"),
        (["configs", "pong/stn"], "unknown config 'pong/stn': did you mean 'pong/stm'"),
        (["envs", "CartPoleNoVell-v1"], "unknown environment 'CartPoleNoVell-v1': did you mean 'CartPoleNoVel-v1'"),
        (["tasks", "--jsn"], "unknown option of relmem tasks 'jsn': did you mean 'json'?"),
        (["corse"], "unknown command 'corse': did you mean 'cores'?"),
    ],
)
def test_mistakes_are_one_sentence(argv, sentence, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith(f"relmem: {sentence}")


def test_a_folder_that_is_gone_is_no_reason_to_fail(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["configs", "pong/stm"]) == 0
    assert "pong/stm" in capsys.readouterr().out


def test_the_version(capsys):
    assert main(["--version"]) == 0 and capsys.readouterr().out.startswith("relmem ")


def test_names_are_chosen_by_parts_in_their_order():
    assert chosen("core", [], ["b", "a"]) == ["b", "a"]
    assert chosen("core", ["gru", "LSTM"], ["lstm", "min_lstm", "gru", "min_gru"]) == ["lstm", "min_lstm", "gru"]


def test_the_summary_of_a_docstring():
    doc = """DeltaNet (Schlag et al. 2021, "Linear") of ``heads`` (each alone), M(k) = v: more.

    And more."""
    assert summary(doc) == "DeltaNet (Schlag et al. 2021) of heads, M(k) = v"
    assert summary("mLSTM (Beck et al. 2024), for each head h:\n\n    h = 1") == "mLSTM (Beck et al. 2024)"
