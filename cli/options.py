"""From a command line and a YAML file to a checked ``TrainConfig``.

Which options exist depends on the algorithm and on the memory core, so their names are looked up first; the parser
is then built from the signatures of what they stand for, which give types, defaults and help.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import re
import types
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import docstring_parser
from jsonargparse import ArgumentParser, Namespace

from ..agents.cores.registry import CORES, core_options, make_core, registered_cores
from ..common.checks import require_at_most, require_choice, unknown
from ..supervised import memories, memory_factory
from ..tasks.registry import TASKS, registered_tasks
from .config import ALGORITHMS, PolicyConfig, TrainConfig
from .config_files import GROUPS, config_name, find_config, flatten, read_config, shipped_configs
from .task_config import HeadConfig, TaskTrainConfig, TrainingConfig

DEFAULT = TrainConfig()
MAX_SEED = 2**31 - 1  # environments take no greater one


class Invocation(NamedTuple):
    """What a command line asks for."""

    config: TrainConfig | TaskTrainConfig
    name: str  # of the config, for the run folder
    run_dir: Path | None
    resume: Path | None
    smoke: bool


class _Parsed(NamedTuple):
    config: TrainConfig | TaskTrainConfig
    values: Namespace
    name: str  # of the run where no config file gives it one


class Group(NamedTuple):
    """Options that begin with one word, such as ``core``."""

    name: str
    title: str
    source: Callable  # whose parameters the options are
    choices: Iterable[str] = ()  # of its option ``name``, if it has one
    chosen: str = ""


def parse(argv: Sequence[str]) -> Invocation:
    """Read, merge and check the options of ``relmem train``.

    A ``task`` makes it a supervised training, else environments are trained on. A flag wins over the config file, and
    the file over the defaults. Another core (task, algorithm) on the command line drops the file's options of the core
    (task, algorithm).

    :raises ValueError: for anything unknown or out of range, in one sentence
    """
    if not argv:
        raise ValueError("name an experiment: a --config such as pong/stm, an --env.id or a --task.name")
    first = _first_look(argv)
    file = _file(first)
    options = flatten(read_config(file)) if file else {}
    if first.task or any(key.startswith("task.") for key in options):
        if first.task and any(key.startswith("env.") for key in options):
            raise ValueError(f"{file} is a config of environments: task.name needs a config of a task, or none")
        config, values, name = _parse_task(first, options, file, argv)
    else:
        config, values, name = _parse_environments(first, options, file, argv)
    require_at_most(MAX_SEED, seed=config.seed)
    return Invocation(
        config=config.smoke() if values.smoke else config,
        name=config_name(file) if file else name.replace(":", "."),
        run_dir=Path(values.run_dir) if values.run_dir else None,
        resume=Path(values.resume) if values.resume else None,
        smoke=values.smoke,
    )


def _parse_environments(
    first: argparse.Namespace, options: dict[str, Any], file: Path | None, argv: Sequence[str]
) -> _Parsed:
    core, options = _choose("core", first.core, options, DEFAULT.core["name"])
    algo, options = _choose("algo", first.algo, options, DEFAULT.algo.name, "env.n_envs")
    require_choice("algorithm", algo, ALGORITHMS)
    groups = [
        Group("env", "the environment", ALGORITHMS[algo].env),
        Group("policy", "the policy", PolicyConfig),
        Group("core", f"core '{core}'", CORES.factory(core), registered_cores(), core),
        Group("algo", f"algorithm '{algo}'", ALGORITHMS[algo].options, ALGORITHMS, algo),
    ]
    values = TrainParser(TrainConfig, groups).read(options, file, argv)
    config = TrainConfig(
        **_plain({key: values[key] for key in ("total_timesteps", "seed", "device", "precision")}),
        env=ALGORITHMS[algo].env(**_plain(values.env)),
        policy=PolicyConfig(**_plain(values.policy)),
        core=_plain(values.core),
        algo=ALGORITHMS[algo].options(**_plain(values.algo)),
    )
    make_core(core, 8, **config.core_kwargs)  # checks the ranges of its options, before any environment starts
    return _Parsed(config, values, f"{algo}_{core}")


def _parse_task(first: argparse.Namespace, options: dict[str, Any], file: Path | None, argv: Sequence[str]) -> _Parsed:
    core, options = _choose("core", first.core, options, DEFAULT.core["name"])
    task, options = _choose("task", first.task, options, "", "training.stop_at")  # which is in units of its metric
    if not task:
        raise ValueError(f"{file}: task.name is missing: choose from {', '.join(registered_tasks())}")
    groups = [
        Group("task", f"task '{task}'", TASKS.factory(task), registered_tasks(), task),
        Group("head", "the head", HeadConfig),
        Group("core", f"core '{core}'", memory_factory(core), memories(), core),
        Group("training", "the training", TrainingConfig),
    ]
    values = TrainParser(TaskTrainConfig, groups).read(options, file, argv)
    config = TaskTrainConfig(
        **_plain({key: values[key] for key in ("total_updates", "max_minutes", "seed", "device", "precision")}),
        task=_plain(values.task),
        head=HeadConfig(**_plain(values.head)),
        core=_plain(values.core),
        training=TrainingConfig(**_plain(values.training)),
    )
    return _Parsed(config, values, f"{task}_{core}")


def _choose(
    group: str, asked: str | None, options: dict[str, Any], default: str, *dependent: str
) -> tuple[str, dict[str, Any]]:
    """The name of the core, task or algorithm, and the file's options without those of another one."""
    in_file = str(options.get(f"{group}.name", default))
    chosen = asked or in_file
    if chosen != in_file:
        options = {key: value for key, value in options.items() if not key.startswith((f"{group}.", *dependent))}
    return chosen, options | {f"{group}.name": chosen}


def _file(first: argparse.Namespace) -> Path | None:
    """The config file to start from: the one that was asked for, or that of the run to resume."""
    file = None if first.resume is None else Path(first.resume, "config.yaml")
    if file and not file.is_file():
        raise ValueError(f"'{first.resume}' is no run folder: it holds no config.yaml")
    if first.resume and first.run_dir:
        raise ValueError("--resume goes on in the run's own folder: it takes no --run_dir")
    return file if first.config is None else find_config(first.config)


def _first_look(argv: Sequence[str]) -> argparse.Namespace:
    """The few flags that decide which others there are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config")
    parser.add_argument("--resume")
    parser.add_argument("--run_dir")
    parser.add_argument("--core.name", dest="core")
    parser.add_argument("--algo.name", dest="algo")
    parser.add_argument("--task.name", dest="task")
    try:
        first = parser.parse_known_args(argv)[0]
    except argparse.ArgumentError as error:
        raise ValueError(f"{str(error.argument_name).removeprefix('--')} needs a value") from error
    for name, value in vars(first).items():
        if value == "":  # as of a shell variable that is not set
            raise ValueError(f"{name} needs a value, got ''")
    return first


class TrainParser:
    """The flags of ``relmem train``.

    :param config: what they describe
    :param groups: its groups of options
    """

    def __init__(self, config: type[TrainConfig] | type[TaskTrainConfig], groups: Sequence[Group]) -> None:
        self._types: dict[str, Any] = {}
        self._groups = {group.name: group for group in groups}
        self._parser = ArgumentParser(
            prog="relmem train",
            usage="relmem train [--config CONFIG] [options]",
            description="Train on an environment or, with --task.name, on a supervised task: "
            f"{', '.join(registered_tasks())}. The options that follow depend on what is trained. "
            f"Shipped configs: {', '.join(shipped_configs())}.",
            exit_on_error=False,
            allow_abbrev=False,
        )
        add = self._parser.add_argument
        add("--config", type=str | None, help="a YAML file, or the name of a shipped config such as pong/stm")
        add("--run_dir", type=str | None, help="folder of the run; unless given, runs/<what is trained>_<time>")
        add("--resume", type=str | None, metavar="RUN", help="run folder to continue")
        add("--smoke", action="store_true", help="cut the run down to a few seconds, to see whether it works")
        self._flags = ["config", "run_dir", "resume", "smoke", "help"]

        self._add(self._parser, "", config, skip=GROUPS)
        for group in groups:
            target = self._parser.add_argument_group(group.title)
            if group.choices:
                key = f"{group.name}.name"
                self._types[key] = Literal[tuple(dict.fromkeys((*group.choices, group.chosen)))]
                target.add_argument(f"--{key}", type=self._types[key], default=group.chosen)
            self._add(target, f"{group.name}.", group.source, skip=("input_size", "output_size", "name"))

    def _add(self, group: Any, prefix: str, source: Callable, skip: Iterable[str]) -> None:
        """One flag for every parameter of a class or function."""
        docs = {}
        documented = [*getattr(source, "__mro__", (source,)), getattr(source, "options_of", object)]
        for place in reversed(documented):
            parsed = docstring_parser.parse(place.__doc__ or "")
            docs.update({p.arg_name: " ".join((p.description or "").split()) for p in parsed.params})
        for p in inspect.signature(source, eval_str=True).parameters.values():
            if p.name in skip:
                continue
            self._types[prefix + p.name] = Any if p.annotation is p.empty else p.annotation
            group.add_argument(
                f"--{prefix}{p.name}", type=self._types[prefix + p.name], default=p.default, help=docs.get(p.name)
            )

    def read(self, options: dict[str, Any], file: Path | None, argv: Sequence[str]) -> Namespace:
        """Check the options of a config file, then those of the command line on top of them.

        :param options: of the config file, with dotted names
        :param file: where they come from
        :param argv: the command line
        :raises ValueError: if an option is unknown or its value is not of its type
        """
        for key in options:
            if key not in self._types:
                raise ValueError(f"{file}: {self._unknown('config key', key, self._types)}")
        given: dict[str, str] = {}
        for token, following in itertools.pairwise([*argv, ""]):
            flag, equals, value = token.removeprefix("--").partition("=")
            flag = flag.removesuffix("+")  # which adds to a list
            if token.startswith("--") and flag not in (*self._flags, *self._types):
                raise ValueError(self._unknown("option", flag, [*self._flags, *self._types]))
            given[flag] = value if equals else following
        options = {key: self._whole(key, value) for key, value in options.items()}
        argv = self._with_whole_numbers(argv)
        try:
            checked = self._parser.parse_object(_nest(options))
        except argparse.ArgumentError as error:
            raise ValueError(f"{file}: {self._explain(error, options)}") from error
        self._parser.set_defaults({key: checked[key] for key in options})
        try:
            return self._parser.parse_args(list(argv))
        except argparse.ArgumentError as error:
            raise ValueError(self._explain(error, given)) from error

    def _whole(self, key: str, value: Any) -> Any:
        """1e6 as the integer that it is, where one is asked for."""
        integer = "an integer" in _describe(self._types.get(key, str))
        if not integer or not re.fullmatch(r"\d+(\.\d+|(\.\d+)?[eE]\+?\d{1,3})", str(value)):
            return value
        number = Decimal(str(value))
        return int(number) if number == number.to_integral_value() else value

    def _with_whole_numbers(self, argv: Sequence[str]) -> list[str]:
        result, flag = [], ""
        for token in argv:
            name, equals, value = token.partition("=")
            if token.startswith("--"):
                flag = name.removeprefix("--")
                result.append(f"{name}={self._whole(flag, value)}" if equals else token)
            else:
                result.append(str(self._whole(flag, token)))
        return result

    def _unknown(self, kind: str, key: str, valid: Iterable[str]) -> str:
        """Say which option is nearest, in the same group if there is that group."""
        group, dot, name = key.partition(".")
        if key in GROUPS:
            return f"unknown {kind} '{key}': did you mean '{key}.{GROUPS[key]}'?"
        longer = [group for group in self._groups if key.startswith(group) and not dot]
        if longer:
            return f"unknown {kind} '{key}': did you mean '{longer[0]}', which holds '{GROUPS[longer[0]]}' and others?"
        if not dot or group not in GROUPS:
            return unknown(kind, key, valid)
        if group not in self._groups:
            other = "a task" if "task" in self._groups else "environments"
            return f"unknown {kind} '{key}': a training on {other} has the groups {', '.join(self._groups)}"
        siblings = [option.removeprefix(f"{group}.") for option in valid if option.startswith(f"{group}.")]
        owners = [core for core in registered_cores() if name in core_options(core)] if group == "core" else []
        if owners:
            title = self._groups[group].title
            return f"{title} has no option '{name}', which belongs to {' and '.join(owners)}: choose it by core.name"
        return unknown(f"{kind} of {self._groups[group].title}", name, siblings)

    def _explain(self, error: argparse.ArgumentError, given: dict[str, Any]) -> str:
        """Put a parser's complaint into one sentence in plain words."""
        text = " ".join(str(error).split())
        match = re.search(r'key "([^"]+)"', text)
        if match and match[1] in self._types and match[1] in given:
            return f"{match[1]} must be {_describe(self._types[match[1]])}, got {given[match[1]]!r}"
        stray = re.match(r"unrecognized arguments: (\S+)", text, re.IGNORECASE)
        if stray and stray[1] in shipped_configs():
            return f"unrecognized argument '{stray[1]}': did you mean --config {stray[1]}?"
        return re.sub(r"^argument --(\S+): expected one argument$", r"\1 needs a value", text)


def _plain(options: Namespace | dict[str, Any]) -> dict[str, Any]:
    """Numbers as Python's own: the parser's subclasses of them have no place in saved files."""
    if isinstance(options, Namespace):
        options = options.as_dict()  # not `vars`, where names of its methods, such as items, are disguised

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        return int(value) if isinstance(value, int) else float(value)

    return {key: plain(value) for key, value in options.items()}


def _nest(options: dict[str, Any]) -> dict[str, Any]:
    """The inverse of ``flatten``."""
    nested: dict[str, Any] = {}
    for key, value in options.items():
        group, dot, name = key.rpartition(".")
        (nested.setdefault(group, {}) if dot else nested)[name] = value
    return nested


_WORDS = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    types.NoneType: "null",
    "PositiveInt": "an integer of at least 1",
    "NonNegativeInt": "an integer of at least 0",
    "PositiveFloat": "a number above 0",
    "NonNegativeFloat": "a number of at least 0",
    "ClosedUnitInterval": "a number from 0 to 1",
}


def _describe(hint: Any) -> str:
    """A type in plain words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe(member) for member in get_args(hint))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is list:
        return f"a list such as [64,64], each of it {_describe(*get_args(hint))},"
    name = getattr(hint, "__name__", str(hint))
    return _WORDS.get(hint) or _WORDS.get(name) or name
