"""Train an agent, or a model on a task, as ``relmem train`` does: ``python train.py --config configs/pong/stm.yaml``"""

import sys

from relmem.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
