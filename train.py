"""Train an agent or a task's model, ``python train.py --config configs/pong/stm.yaml``: the same as ``relmem train``."""

import sys

from relmem.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
