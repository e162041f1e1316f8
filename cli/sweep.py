"""``relmem sweep``: the product of lists of options and seeds, one training each."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..common.files import require_writable
from ..common.output import say, warn
from ..experiment.compare import TASK, compare, find_runs
from ..experiment.folder import RunFolder, is_over
from ..experiment.run import require_same_run
from . import plot
from .arguments import Arguments
from .config_files import GROUPS, find_config
from .launch import LAUNCHERS, Launcher, Training, launcher
from .options import parse

RUN_OPTIONS = (
    *("total_timesteps", "total_updates", "max_minutes", "init_from"),
    *("device", "precision", "threads", "keep", "track"),
)


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check every training of the sweep, and what an earlier start left of them.

    :raises ValueError: if any of them is impossible, or its folder holds another run
    """
    parser = Arguments(
        "sweep",
        "Train a config with every combination of seeds and of options that are given several values, each in a folder "
        "of its own, and draw what they showed. The same command goes on where one was stopped. Options with "
        "one value are those of every training.",
        [
            "relmem sweep cartpole/masked_lstm --seeds 1 2 3 --core.name lstm gru identity",
            "relmem sweep my.yaml --seeds 1 2 --algo.learning_rate 1e-3 3e-3 --total_timesteps 50000 --out runs/rates",
        ],
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a shipped config")
    parser.add_argument("--seeds", nargs="+", default=["0"], metavar="SEED", help="default: 0")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of all runs; default: runs/sweep_CONFIG")
    parser.add_argument("--processes", type=positive, metavar="N", help="at a time; default: one per processor")
    parser.add_argument("--launcher", default="local", choices=list(LAUNCHERS), help="where they run (%(default)s)")
    parser.add_argument("--smoke", action="store_true", help="cut each down to a few seconds, to see whether it works")
    args, options = parser.read_with_overrides(argv, GROUPS, RUN_OPTIONS, several=True)
    out = args.out or Path("runs", f"sweep_{name_of(args.config)}")
    lists = {**options, "seed": args.seeds}
    fixed = ["--config", args.config, *["--smoke"] * args.smoke]
    trainings = [training(out, fixed, lists, values) for values in itertools.product(*lists.values())]
    if len({training.folder for training in trainings}) < len(trainings):
        raise ValueError("the sweep has a training twice: a value stands twice in one of its lists")
    require_writable(out)
    todo = [training for training in trainings if is_due(training)]
    launch = launcher(args.launcher, args.processes)
    by = [name for name, texts in options.items() if len(texts) > 1 and not name.startswith(TASK)]
    return lambda: run(out, trainings, todo, launch, by)


def name_of(config: str) -> str:
    """Of a config, in the name of a folder."""
    return find_config(config).stem if Path(config).is_file() else config.replace("/", "_")


def training(out: Path, fixed: Sequence[str], lists: Mapping[str, Sequence[str]], values: Sequence[str]) -> Training:
    """One combination of values, in a folder that is named after those that differ: ``lstm_gamma_0.9_s1``."""
    named = [
        text if name.endswith(".name") else f"{name.rpartition('.')[2]}_{text}"
        for (name, texts), text in zip(lists.items(), values, strict=True)
        if len(texts) > 1 and name != "seed"
    ]
    stem = re.sub(r"[^\w.+-]+", "-", re.sub(r"[][{}\"']", "", "_".join([*named, f"s{values[-1]}"])))
    flags = [word for name, text in zip(lists, values, strict=True) for word in (f"--{name}", text)]
    return Training(out / stem, (*fixed, *flags))


def is_due(training: Training) -> bool:
    """Whether a training has not been run to its end.

    :raises ValueError: if it is impossible, or its folder holds something else
    """
    folder, asked = training.folder, parse(training.options)
    job = asked.job(asked.config, asked.smoke)
    if not (folder / "config.yaml").exists():
        if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"'{folder}' exists and is no folder of a run: choose another --out")
        return True
    saved = parse(["--resume", str(folder)]).config
    require_same_run(job, saved, RunFolder(folder))
    return not is_over(folder) or job.config[job.total] > saved[job.total]


def run(out: Path, trainings: Sequence[Training], todo: Sequence[Training], launch: Launcher, by: Sequence[str]) -> int:
    """Train what is left, then draw all."""
    say(f"{len(trainings)} trainings in {out}: {len(trainings) - len(todo)} are over, {len(todo)} to go")
    code = launch(todo, lambda training, code: None)
    if code >= 128:
        warn("the sweep was stopped: the same command goes on with it")
        return code
    runs, left_out = find_runs([training.folder for training in trainings if training.folder.is_dir()])
    if runs:
        plot.show(compare(runs, by), left_out, "steps", out / "plot.png")
    return code


def positive(text: str) -> int:
    """A number of at least 1, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise ValueError
    return int(text)
