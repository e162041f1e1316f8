"""The fault campaign's short form: a few faults of each kind, and nothing corrupted."""

import pytest

from benchmarks.faults.__main__ import PARTS, main

IN_PROCESS = ("truncations", "flips", "configurations", "observations")
FORKS = ("kills", "signals", "stdout", "folders", "disk")  # and A3C's workers have tests of their own


@pytest.mark.slow
@pytest.mark.parametrize("part", IN_PROCESS)
def test_files_and_inputs(part, capsys):
    assert main(["--quick", "--only", part]) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("part", FORKS)
def test_trainings(part, capsys):
    assert part in PARTS
    assert main(["--quick", "--only", part]) == 0, capsys.readouterr().err
