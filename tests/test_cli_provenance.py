"""Which commit a run names: that of the clone it runs from, and nobody else's."""

import subprocess

from relmem.cli import provenance


def git(folder, *command):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True)


def test_a_clone_names_its_commit_and_whether_files_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit() is None
    git(tmp_path, "init")
    (tmp_path / "file").write_text("a")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    clean = provenance.commit()
    assert clean and not clean.endswith("+")
    assert provenance.versions().splitlines()[0] == f"{provenance.COMMIT} {clean}"
    (tmp_path / "file").write_text("b")
    assert provenance.commit() == f"{clean}+"


def test_an_installed_copy_does_not_name_the_repository_around_it(tmp_path, monkeypatch):
    git(tmp_path, "init")
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "site-packages")
    assert provenance.commit() is None
    assert provenance.versions().startswith("# Python")
