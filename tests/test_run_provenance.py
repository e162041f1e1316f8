"""Which commit a run names: that of the clone it runs from, and nobody else's."""

import os
import subprocess

import pytest

from relmem.experiment import provenance


def git(folder, *command):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True, env=environment)


@pytest.fixture
def commit(monkeypatch):
    """What a process that begins now, with relmem in a certain folder, names."""

    def of(folder):
        monkeypatch.setattr(provenance, "ROOT", folder)
        provenance.commit.cache_clear()
        return provenance.commit()

    yield of
    provenance.commit.cache_clear()


@pytest.fixture
def clone(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("a")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_clone_names_its_commit_and_whether_code_differs(clone, commit):
    clean = commit(clone)
    assert clean and not clean.endswith("+")
    assert provenance.versions().splitlines()[0] == f"{provenance.COMMIT} {clean}"
    (clone / "results.json").write_text("{}")
    assert commit(clone) == clean
    (clone / "code.py").write_text("b")
    assert provenance.commit() == clean  # this process began before
    assert commit(clone) == f"{clean}+"


def test_a_folder_that_is_no_clone_names_nothing(tmp_path, commit):
    assert commit(tmp_path) is None


def test_an_installed_copy_does_not_name_the_repository_around_it(clone, commit):
    (clone / "site-packages").mkdir()
    assert commit(clone / "site-packages") is None
    assert provenance.versions().startswith("# Python")
