"""From a command line and a YAML file to a job with a checked config.

Which options exist depends on the algorithm, the task and the memory core, so their names are looked up first. The
options themselves are declared in the signatures of what they belong to (see ``common.options``).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

from ..agents.cores.registry import core_options, registered_cores
from ..common.checks import unknown
from ..common.options import describe
from ..common.values import read, shown
from ..experiment.agent import AgentJob
from ..experiment.config import Config, Group
from ..experiment.task import TaskJob
from ..tasks.registry import registered_tasks
from .config_files import GROUPS, find_config, read_config, shipped_configs

FLAGS = {
    "config": "a YAML file, or the name of a shipped config such as pong/stm",
    "run_dir": "folder of the run; unless given, runs/<what is trained>_<time>",
    "resume": "run folder to continue",
    "trusted": "with --resume or --init_from: load what may run code, as models of relmem 0.1 may (docs/security.md)",
    "smoke": "cut the run down to a few seconds, to see whether it works",
    "help": "list the options",
}
SWITCHES = ("smoke", "trusted", "help")  # flags without a value
NAMES = ("core.name", "algo.name", "task.name")  # options that decide which others there are
DEFAULT_CORE, DEFAULT_ALGORITHM = "stm", "ppo"


class Invocation(NamedTuple):
    """What a command line asks for."""

    job: type[AgentJob] | type[TaskJob]
    config: Config
    run_dir: Path | None
    resume: Path | None
    smoke: bool
    trusted: bool


def parse(argv: Sequence[str]) -> Invocation:
    """Read, merge and check the options of ``relmem train``.

    A ``task`` makes it a supervised training, else environments are trained on. A flag wins over the config file, and
    the file over the defaults. Another core (task, algorithm) on the command line drops the file's options of the core
    (task, algorithm).

    :raises ValueError: for anything unknown or out of range, in one sentence
    """
    words = _words(argv)
    job, groups, in_file, file = _experiment(words)
    flags = {name: words.pop(name) for name in FLAGS if name in words}
    if "resume" in flags and "run_dir" in flags:
        raise ValueError("--resume goes on in the run's own folder: it takes no --run_dir")
    known = Config(groups, {}).options
    with _naming(file):
        for key in in_file:
            if key not in known:
                raise ValueError(_unknown("config key", key, [*filter(None, groups), *known], groups))
        Config(groups, in_file)
    on_flags = {}
    for key, text in words.items():
        if key not in known:
            raise ValueError(_unknown("option", key, [*FLAGS, *known], groups))
        if not text and bool in (known[key].hint, *get_args(known[key].hint)):  # may stand alone: --track
            text = "true"
        text = _given(key, text)
        with _naming(key):
            on_flags[key] = read(text)
    config = Config(groups, in_file | on_flags)
    if not file and not {"env.id", "task.name"} & words.keys():
        raise ValueError("name an experiment: a --config such as pong/stm, an --env.id or a --task.name")
    run_dir, resume = (Path(flags[name]) if name in flags else None for name in ("run_dir", "resume"))
    if "trusted" in flags and not resume and not config.flat().get("init_from"):
        raise ValueError("trusted goes with --resume or --init_from: nothing is loaded without them")
    return Invocation(job, config, run_dir, resume, "smoke" in flags, "trusted" in flags)


def _words(argv: Sequence[str]) -> dict[str, str]:
    """The texts on a command line, by the names of their flags."""
    words: dict[str, str] = {}
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            hint = f": did you mean --config {token}?" if token in shipped_configs() else ""
            raise ValueError(f"unrecognized argument '{token}'{hint}")
        name, equals, text = token.removeprefix("--").partition("=")
        if name in SWITCHES and equals:
            raise ValueError(f"{name} takes no value, got '{text}'")
        if name not in SWITCHES and not equals and rest and not rest[0].startswith("--"):
            text = rest.pop(0)
        words[name] = text if name in SWITCHES or name not in (*FLAGS, *NAMES) else _given(name, text)
    return words


def _given(name: str, text: str) -> str:
    """The value of a flag, which a shell variable that is not set may have left empty."""
    if not text:
        raise ValueError(f"{name} needs a value, got ''")
    return text


def _experiment(
    words: Mapping[str, str],
) -> tuple[type[AgentJob] | type[TaskJob], dict[str, Group], dict[str, Any], Path | None]:
    """What is trained, the options that it has, those that a file sets, and the file: the one that was asked for, or
    that of the run to resume."""
    file = Path(words["resume"], "config.yaml") if "resume" in words else None
    if file and not file.is_file():
        raise ValueError(f"'{words['resume']}' is no run folder: it holds no config.yaml")
    file = find_config(words["config"]) if "config" in words else file
    options = read_config(file) if file else {}
    core, options = _choose("core", words, options, DEFAULT_CORE)
    if "task.name" not in words and not any(key.startswith("task.") for key in options):
        algorithm, options = _choose("algo", words, options, DEFAULT_ALGORITHM, "env.n_envs")
        return AgentJob, AgentJob.groups(core, algorithm), options, file
    if "task.name" in words and any(key.startswith("env.") for key in options):
        raise ValueError(f"{file} is a config of environments: task.name needs a config of a task, or none")
    task, options = _choose("task", words, options, "", "training.stop_at")  # which is in units of its metric
    if not task:
        raise ValueError(f"{file}: task.name is missing: choose from {', '.join(registered_tasks())}")
    return TaskJob, TaskJob.groups(core, task), options, file


def _choose(
    group: str, words: Mapping[str, str], options: dict[str, Any], default: str, *dependent: str
) -> tuple[str, dict[str, Any]]:
    """The name of the core, task or algorithm, and the file's options without those of another one."""
    key = f"{group}.name"
    in_file = options.get(key, default)
    if not isinstance(in_file, str):
        raise ValueError(f"{key} must be text, got {shown(in_file)}")
    chosen = words.get(key, in_file)
    if chosen != in_file:
        options = {name: value for name, value in options.items() if not name.startswith((f"{group}.", *dependent))}
    return chosen, options


@contextmanager
def _naming(place: Path | str | None) -> Iterator[None]:
    """Say where a mistake is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _unknown(kind: str, key: str, valid: Iterable[str], groups: Mapping[str, Group]) -> str:
    """Say which option is nearest, in the same group if there is that group."""
    group, _, name = key.partition(".")
    if key in GROUPS:
        first = next(iter(groups[key].options)) if key in groups else "name"
        return f"unknown {kind} '{key}': did you mean '{key}.{first}'?"
    if group not in GROUPS:
        return unknown(kind, key, valid)
    if group not in groups:
        other = "a task" if "task" in groups else "environments"
        return f"unknown {kind} '{key}': a training on {other} has the groups {', '.join(filter(None, groups))}"
    owners = [core for core in registered_cores() if name in core_options(core)] if group == "core" else []
    if owners:
        belongs = f"which belongs to {' and '.join(owners)}: choose it by core.name"
        return f"{groups[group].title} has no option '{name}', {belongs}"
    return unknown(f"{kind} of {groups[group].title}", name, groups[group].options)


def help_text(argv: Sequence[str]) -> str:
    """Every option that a command line may have, as far as it says what is trained.

    :raises ValueError: if core, algorithm or task is unknown
    """
    _, groups, options, file = _experiment(_words(argv))
    with _naming(file):
        config = Config(groups, options)
    about = (
        "Train on an environment or, with --task.name, on a supervised task: "
        f"{', '.join(registered_tasks())}. The options that follow depend on what is trained. "
        f"Shipped configs: {', '.join(shipped_configs())}."
    )
    lines = ["usage: relmem train [--config CONFIG] [options]", "", *textwrap.wrap(about, 110), ""]
    lines += [f"  --{name}  {words}" for name, words in FLAGS.items()]
    for prefix, group in groups.items():
        lines += ["", f"{group.title}:"]
        for name, option in group.options.items():
            key = f"{prefix}.{name}" if prefix else name
            text = f"{option.help} ({describe(option.hint)}; {shown(config[key])})"
            lines += [f"  --{key}", *textwrap.wrap(text, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines)
