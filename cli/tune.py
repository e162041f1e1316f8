"""``relmem tune``: look for good settings of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.extras import needs_extra
from ..common.files import replacing, require_writable
from ..common.output import say, stage, warn
from ..common.values import write
from ..experiment.job import Job
from ..experiment.search_space import read_space, require_space, shipped_space
from .arguments import Arguments
from .config_files import GROUPS
from .launch import LAUNCHERS, Training, launcher
from .options import parse
from .sweep import RUN_OPTIONS, name_of, positive

if TYPE_CHECKING:
    from ..experiment.tune import Tuning

EVALUATIONS = 10  # of an agent while it trains, unless eval.every says otherwise
WARMUP = 0.25  # of a training, before which it is not pruned


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check the command line after ``relmem tune``, and open the study.

    :raises ValueError: if it asks for something impossible
    """
    parser = Arguments(
        "tune",
        "Look for good settings of a config with Optuna (extra [tune]). Trials that an evaluation finds below the "
        "median of the others end early; the best settings become a config for `relmem train`. The same command goes "
        "on with the study, and shares it where it runs several times at once. Options with a value are those of every "
        "trial.",
        [
            "relmem tune cartpole/masked_lstm --trials 30",
            "relmem tune tasks/parity_stm --core.name gru --max_minutes 2 --trials 20 --space my_space.yaml",
        ],
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a shipped config")
    parser.add_argument("--trials", type=positive, required=True, metavar="N", help="in all, of all processes")
    parser.add_argument(
        "--space", type=Path, metavar="FILE", help="what is tried; default: relmem's search_spaces.yaml"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of study and trials; default: runs/tune_CONFIG")
    parser.add_argument("--processes", type=positive, default=1, metavar="N", help="trials at a time (%(default)s)")
    parser.add_argument("--launcher", default="local", choices=list(LAUNCHERS), help="where they run (%(default)s)")
    args, options = parser.read_with_overrides(argv, GROUPS, ("seed", *RUN_OPTIONS), several=True)
    for name, texts in options.items():
        if len(texts) > 1:
            raise ValueError(f"--{name} takes one value: what is tried stands in --space")
    fixed = [word for name, (text,) in options.items() for word in (f"--{name}", text)]
    base = ["--config", args.config, *fixed]
    asked = parse(base)
    every = "eval.every"
    if asked.job.kind == "agent" and asked.config[every] is None:
        base += [f"--{every}", str(max(1, asked.config["total_timesteps"] // EVALUATIONS))]

    def make_job(words: Sequence[str]) -> Job:
        trial = parse(words)
        return trial.job(trial.config)

    kind = asked.config["algo.name"] if asked.job.kind == "agent" else "supervised"
    space = read_space(args.space) if args.space else shipped_space(kind, asked.config["core.name"])
    space = {name: values for name, values in space.items() if name not in options}
    require_space(space, asked.config.options)
    if not space:
        raise ValueError("nothing is left to be tried: every option of the search space is given a value")
    with needs_extra("tune", "relmem tune"), stage("loading Optuna"):
        from ..experiment.tune import Tuning, open_study
    out = args.out or Path("runs", f"tune_{name_of(args.config)}")
    require_writable(out)
    job = make_job(base)
    by_minutes = asked.job.kind == "task" and asked.config["max_minutes"]  # nobody knows how many updates that is
    warmup = 0 if by_minutes else int(WARMUP * asked.config[job.total])
    what = [*base, *(f"{name} {values}" for name, values in space.items())]
    study = open_study(out, name_of(args.config), not job.higher_is_better, what, warmup)
    tuning = Tuning(study, out, space, base, make_job)
    if args.launcher == "local" and args.processes == 1:
        return lambda: run(tuning, args.trials)
    launch = launcher(args.launcher, args.processes)
    mine = ["--trials", str(args.trials), "--out", str(out)]
    mine += ["--space", str(args.space)] if args.space else []
    count = min(args.processes, args.trials - tuning.over)  # or each of the others would try something too
    helpers = [Helper(out / f"process_{k}", (args.config, *mine, *fixed)) for k in range(count)]
    return lambda: launch(helpers, lambda *_: None) or run(tuning, args.trials)


class Helper(Training):
    """One of several processes that share a study."""

    def arguments(self) -> list[str]:
        return ["tune", *self.options]


def run(tuning: Tuning, trials: int) -> int:
    """Run what is left of the trials, then write down the best settings."""
    say(f"Study {tuning.folder / 'study.db'}: {tuning.over} of {trials} trials are over")
    code, best = tuning.run(trials), tuning.best()
    if best is None:
        warn("no trial has come to its end yet")
        return code
    path, folder, settings = tuning.folder / "best.yaml", tuning.folder_of(best), tuning.settings(best)
    with replacing(path) as file:
        text = f"# The best of {tuning.over} trials, with a score of {best.value:.4g}: {folder.name}\n"
        file.write((text + write(parse(settings).config.as_dict())).encode())
    tried = settings[len(tuning.options) :]
    found = "\n".join(f"  {name} {text}" for name, text in zip(tried[::2], tried[1::2], strict=True))
    say(f"\nBest of {tuning.over} trials: {best.value:.4g}, in {folder}\n{found}")
    say(f"Train with it: relmem train --config {path}")
    return code
