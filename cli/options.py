"""From a command line and a YAML file to a job with a checked config.

Which options exist depends on the algorithm, the task and the memory core, so their names are looked up first. The
options themselves are declared in the signatures of what they belong to (see ``common.options``).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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
    "smoke": "cut the run down to a few seconds, to see whether it works",
    "help": "list the options",
}
DEFAULT_CORE, DEFAULT_ALGORITHM = "stm", "ppo"


class Invocation(NamedTuple):
    """What a command line asks for."""

    job: type[AgentJob] | type[TaskJob]
    config: Config
    run_dir: Path | None
    resume: Path | None
    smoke: bool


def parse(argv: Sequence[str]) -> Invocation:
    """Read, merge and check the options of ``relmem train``.

    A ``task`` makes it a supervised training, else environments are trained on. A flag wins over the config file, and
    the file over the defaults. Another core (task, algorithm) on the command line drops the file's options of the core
    (task, algorithm).

    :raises ValueError: for anything unknown or out of range, in one sentence
    """
    words = _words(argv)
    flags = {name: words.pop(name) for name in FLAGS if name in words}
    if flags.get("resume") and flags.get("run_dir"):
        raise ValueError("--resume goes on in the run's own folder: it takes no --run_dir")
    file = _file(flags.get("config"), flags.get("resume"))
    in_file = read_config(file) if file else {}
    job, groups, in_file = _groups(words, in_file, file)
    known = Config(groups, {}).options
    for key in in_file:
        if key not in known:
            raise ValueError(f"{file}: {_unknown('config key', key, known, groups)}")
    for key in words:
        if key not in known:
            raise ValueError(_unknown("option", key, [*FLAGS, *known], groups))
    if file:
        with _naming(file):
            Config(groups, in_file)
    on_flags = {key: _value(key, text) for key, text in words.items()}
    config = Config(groups, in_file | on_flags)
    if not file and not {"env.id", "task.name"} & words.keys():
        raise ValueError("name an experiment: a --config such as pong/stm, an --env.id or a --task.name")
    run_dir, resume = (Path(flags[name]) if name in flags else None for name in ("run_dir", "resume"))
    return Invocation(job, config, run_dir, resume, "smoke" in flags)


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
        if name in ("smoke", "help"):
            if equals:
                raise ValueError(f"{name} takes no value, got '{text}'")
        elif not equals:
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"{name} needs a value")
            text = rest.pop(0)
        if not text and name not in ("smoke", "help"):  # as of a shell variable that is not set
            raise ValueError(f"{name} needs a value, got ''")
        words[name] = text
    return words


def _value(key: str, text: str) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{key}: cannot read '{text}' as YAML: {error}") from error


def _file(config: str | None, resume: str | None) -> Path | None:
    """The config file to start from: the one that was asked for, or that of the run to resume."""
    saved = None if resume is None else Path(resume, "config.yaml")
    if saved and not saved.is_file():
        raise ValueError(f"'{resume}' is no run folder: it holds no config.yaml")
    return saved if config is None else find_config(config)


def _groups(
    words: Mapping[str, str], options: dict[str, Any], file: Path | None
) -> tuple[type[AgentJob] | type[TaskJob], dict[str, Group], dict[str, Any]]:
    """What is trained, its options, and those of the file that belong to it."""
    core, options = _choose("core", words, options, DEFAULT_CORE)
    if "task.name" not in words and not any(key.startswith("task.") for key in options):
        algorithm, options = _choose("algo", words, options, DEFAULT_ALGORITHM, "env.n_envs")
        return AgentJob, AgentJob.groups(core, algorithm), options
    if "task.name" in words and any(key.startswith("env.") for key in options):
        raise ValueError(f"{file} is a config of environments: task.name needs a config of a task, or none")
    task, options = _choose("task", words, options, "", "training.stop_at")  # which is in units of its metric
    if not task:
        raise ValueError(f"{file}: task.name is missing: choose from {', '.join(registered_tasks())}")
    return TaskJob, TaskJob.groups(core, task), options


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
def _naming(file: Path) -> Iterator[None]:
    """Say in which file a mistake is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _unknown(kind: str, key: str, valid: Iterable[str], groups: Mapping[str, Group]) -> str:
    """Say which option is nearest, in the same group if there is that group."""
    group, dot, name = key.partition(".")
    if key in GROUPS:
        return f"unknown {kind} '{key}': did you mean '{key}.{GROUPS[key]}'?"
    longer = [short for short in GROUPS if key.startswith(short) and not dot]
    if longer and kind == "config key":
        return f"unknown {kind} '{key}': did you mean '{longer[0]}', which holds '{GROUPS[longer[0]]}' and others?"
    if not dot or group not in GROUPS:
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
    words = _words(argv)
    file = _file(words.get("config"), words.get("resume"))
    _, groups, options = _groups(words, read_config(file) if file else {}, file)
    with _naming(file or Path("--help")):
        config = Config(groups, {key: value for key, value in options.items() if key in Config(groups, {}).options})
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
