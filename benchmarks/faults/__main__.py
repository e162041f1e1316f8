"""Faults by the hundred, random but seeded, and one table of what became of them.

python -m benchmarks.faults                   # all, into results/faults
python -m benchmarks.faults --only kills      # some parts; their figures take the place of their last ones
python -m benchmarks.faults --quick           # a few faults of each kind, printed only
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.faults import files, inputs, processes
from benchmarks.faults.table import Tally, as_markdown
from relmem.experiment.provenance import commit, processor

PARTS: dict[str, Callable[[Path, np.random.Generator, bool], Tally]] = {
    "kills": processes.kills,
    "workers": processes.workers,
    "signals": processes.signals,
    "stdout": processes.stdout,
    "folders": processes.folders,
    "disk": processes.disk,
    "truncations": files.truncations,
    "flips": files.flips,
    "configurations": inputs.configurations,
    "observations": inputs.observations,
}
OUT = Path(__file__).parents[2] / "results" / "faults"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts of the campaign")
    parser.add_argument("--quick", action="store_true", help="a few faults of each kind, printed only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    tallies: dict[str, Tally] = {}
    known = options.out / "faults.json"
    if not options.quick and known.exists():
        tallies = {entry["part"]: Tally(**entry) for entry in json.loads(known.read_text())["parts"]}
    for part in options.only:
        began = time.monotonic()
        rng = np.random.default_rng([options.seed, list(PARTS).index(part)])
        with tempfile.TemporaryDirectory(prefix="faults_") as folder:
            tally = PARTS[part](Path(folder), rng, options.quick)
        tally.seconds, tally.commit = round(time.monotonic() - began, 1), commit()
        tallies[part] = tally
        print(f"{part}: {tally.survived} of {tally.faults} survived in {tally.seconds:.0f} s", file=sys.stderr)
        for failure in tally.failures[:5]:
            print(f"  {failure}", file=sys.stderr)
        if not options.quick:
            _write(options.out, [tallies[name] for name in PARTS if name in tallies], options.seed)
    found = [tallies[name] for name in PARTS if name in tallies]
    print(as_markdown(found))
    return int(any(tally.survived < tally.faults for tally in found))


def _write(out: Path, tallies: list[Tally], seed: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    facts = {"seed": seed, "processor": processor(), "parts": [t.as_dict() for t in tallies]}
    (out / "faults.json").write_text(f"{json.dumps(facts, indent=1)}\n")
    text = f"# Faults\n\nBy `make faults`, seed {seed}, on {processor()}.\n\n{as_markdown(tallies)}"
    (out / "README.md").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
