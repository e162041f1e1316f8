"""What the README promises can be done; the pages of docs/ are in test_docs.py."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from relmem.agents import registered_cores
from relmem.agents.cores.registry import CORES
from relmem.cli.options import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", [pytest.param(code, id=f"{i}") for i, code in enumerate(blocks("python"))])
def test_python_blocks_run(code, tmp_path):
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr


def commands() -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()]


def test_make_targets_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = [words[1] for words in commands() if words[0] == "make"]
    assert named == ["pong", "test"] and set(named) <= set(targets)


@pytest.mark.parametrize("words", [w for w in commands() if w[0] in ("python", "relmem")], ids=shlex.join)
def test_training_commands_are_valid(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert words[:2] in (["python", "train.py"], ["relmem", "train"])
    parse(words[2:])


def test_the_table_of_cores_is_complete():
    page = (ROOT / "docs" / "cores.md").read_text(encoding="utf-8")
    table = page.partition("## By name")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)))
    shipped = [name for name in registered_cores() if CORES.factory(name).__module__.startswith("relmem.")]
    assert sorted(named) == sorted(shipped)
