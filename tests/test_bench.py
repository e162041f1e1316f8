"""The benchmarks: references compute what they are compared with, measuring and reporting."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import measure, rmc, run, stm
from benchmarks.measure import Group, Spread, Table, Target


@pytest.mark.parametrize("outputs", ["all", "last"])
def test_the_reference_of_stm_computes_what_the_core_does(outputs):
    ours, reference = (stm.training(name, outputs, 4, 3, quick=True)() for name in (stm.FP32, stm.REFERENCE))
    assert ours[0].shape == ((4 if outputs == "all" else 1), 3, 128)
    measure.require_agreement(ours, reference, tolerance=1e-5)


def test_the_reference_of_rmc_computes_what_the_core_does():
    measure.require_agreement(*(rmc.training(name, 3, 2)() for name in (rmc.OURS, rmc.REFERENCE)), tolerance=1e-5)


def test_disagreement_is_refused():
    with pytest.raises(AssertionError, match=r"differs from the core by 1\.0e-01"):
        measure.require_agreement([torch.tensor([1.0, 1.8])], [torch.tensor([1.0, 2.0])])


def test_contestants_take_turns_and_ratios_are_taken_round_by_round():
    calls = []

    def contestant(name, seconds):
        return lambda: calls.append(name) or seconds[calls.count(name) - 1]

    found = measure.interleave({"a": contestant("a", [9, 2, 8, 6]), "b": contestant("b", [9, 1, 2, 3])}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert found == {"a": [2, 8, 6], "b": [1, 2, 3]}  # without the round that warms up
    assert measure.speedup(found["a"], found["b"]) == Spread(median=2, low=2, high=4)


def test_products_are_counted_forward_and_backward():
    x, lstm = torch.zeros(5, 2, 3, requires_grad=True), torch.nn.LSTM(3, 4)
    linear = torch.nn.Linear(3, 4, bias=False)
    forward = 5 * 2 * 2 * 3 * 4
    assert measure.flops(lambda: linear(x).sum().backward()) == 3 * forward
    assert measure.flops(lambda: lstm(x)[0].sum().backward()) == 3 * 5 * 2 * 2 * 16 * (3 + 4)
    a, b, total = torch.zeros(6, 2, 3), torch.zeros(6, 3, 4), torch.zeros(6, 2, 4)
    assert measure.flops(lambda: total.baddbmm_(a, b)) == 6 * measure.flops(lambda: total[0].addmm_(a[0], b[0]))
    assert measure.flops(lambda: total[0].addmm_(a[0], b[0])) == 2 * 2 * 3 * 4


def hungry(mebibytes):
    return lambda: torch.ones(mebibytes, 2**18)


@pytest.mark.skipif(not measure.STATUS.exists(), reason="reads /proc")
def test_peak_memory_is_that_of_the_work(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    assert measure.peak_memory(hungry, 200) * 2**10 == pytest.approx(200, abs=20)


def test_the_report_says_what_was_met():
    targets = [
        Target("fast", Spread(5.0, 4.0, 7.0), least=4, stretch=6),
        Target("slow", Spread(3.0, 3.0, 3.0), least=4, stretch=6),
        Target("unknown", None, least=4, stretch=6),
    ]
    table = Table("Rates", "A note.", [{"name": "a", "rate": Spread(1234.5, 1000.0, 2000.0)}])
    report = run.markdown([Group(targets, [table])], run.conditions(), quick=False)
    assert "| fast | 4 | 6 | 5 (4 to 7) | met |" in report
    assert "| slow | 4 | 6 | 3 | missed by 25% |" in report
    assert "| unknown | 4 | 6 | None | not measured |" in report
    assert "## Rates\n\nA note.\n\n| name | rate |\n| --- | --- |\n| a | 1,234 (1,000 to 2,000) |\n" in report


def test_one_group_runs_alone_and_writes_both_files(tmp_path):
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--only", "rmc", "--out", str(tmp_path)]
    subprocess.run(command, check=True, cwd=measure.ROOT, capture_output=True)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {"processor", "threads", "torch", "commit", "command"} <= found["conditions"].keys()
    assert found["rmc"]["targets"][0]["ratio"]["median"] > 0
    assert "RMC 8 slots x 128" in (tmp_path / "bench.md").read_text()


def test_the_report_of_a_gpu_is_made_on_a_cpu_too(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--device", "cpu", "--out", str(tmp_path)]
    subprocess.run(command, check=True, cwd=measure.ROOT, capture_output=True)
    report, found = (tmp_path / "gpu.md").read_text(), json.loads((tmp_path / "gpu.json").read_text())
    assert [len(table["rows"]) > 0 for table in found["tables"]] == [True] * 5
    assert "fails" not in report and "released formulation" in report
    assert re.search(r"\b[1-9]\d*/\d+ tests collected", report)


@pytest.mark.slow
def test_the_benchmark_of_scale_runs_on_a_ray_of_its_own(tmp_path):
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--only", "scale", "--out", str(tmp_path)]
    subprocess.run(command, check=True, cwd=measure.ROOT, capture_output=True)
    rates, peers, pieces = json.loads((tmp_path / "bench.json").read_text())["scale"]["tables"]
    assert rates["rows"][0]["agent steps/s"]["median"] > 0 and rates["rows"][0]["bytes to the learner"]["median"] > 1000
    assert peers["rows"] and pieces["rows"][0]["MFLOP of an update"] > 0
