"""Make an agent small enough for the repository: weights as bfloat16, and nothing of what only a training needs.

python results/pong/agents/make_small.py RUN FOLDER
"""

import shutil
import sys
from pathlib import Path

from relmem.agents import load


def main(run: Path, folder: Path) -> None:
    """Write ``model.zip`` and ``config.yaml`` of a run into a new folder."""
    folder.mkdir(parents=True)
    model = load(run)
    model.policy.bfloat16()  # a model that is loaded computes in float32, whatever its file has
    model.policy.optimizer.state.clear()
    model.save(folder / "model.zip")
    shutil.copy(run / "config.yaml", folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
