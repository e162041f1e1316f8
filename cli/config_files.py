"""Experiments as YAML files: where to find them and how to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .. import configs
from ..common.checks import unknown

SHIPPED = Path(configs.__file__).parent

GROUPS = {
    "env": "id",
    "policy": "net_arch",
    "core": "name",
    "algo": "name",
    "task": "name",
    "head": "net_arch",
    "training": "learning_rate",
}
"""The keys of a config that hold options of their own, each with one of these."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, (key, _) in enumerate(node.value):
            if key.value in keys[:i] and not key.tag.endswith(":merge"):
                raise yaml.YAMLError(f"the key '{key.value}' is there twice, again on line {key.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def shipped_configs() -> list[str]:
    """Names of the configs that come with relmem, such as ``pong/stm``."""
    return sorted(path.relative_to(SHIPPED).with_suffix("").as_posix() for path in SHIPPED.rglob("*.yaml"))


def find_config(name: str) -> Path:
    """The file of that path or, from any folder, the shipped config of that name (``pong/stm``).

    :raises ValueError: if there is neither
    """
    if Path(name).is_file():
        return Path(name)
    short = name.removeprefix("configs/").removesuffix(".yaml")
    if short not in shipped_configs():
        raise ValueError(unknown("config", short, shipped_configs()) + f" (there is no file '{name}' either)")
    return SHIPPED / f"{short}.yaml"


def config_name(path: Path) -> str:
    """What to call a run of that config: ``configs/pong/stm.yaml`` is ``pong_stm``, any other file its stem."""
    path = path.resolve()
    parts = path.relative_to(SHIPPED).parts if path.is_relative_to(SHIPPED) else path.parts[-1:]
    return "_".join(Path(*parts).with_suffix("").parts)


def read_config(path: Path) -> dict[str, Any]:
    """Groups of options from a YAML file.

    :raises ValueError: if the file cannot be read or holds something else
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read config {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"config {path} must be a mapping of options, got {content!r}")
    return content


def flatten(options: dict[str, Any]) -> dict[str, Any]:
    """Options with dotted names: {"env": {"n_envs": 4}} -> {"env.n_envs": 4}.

    :raises ValueError: if a group holds something else than options
    """
    flat: dict[str, Any] = {}
    for key, value in options.items():
        if key not in GROUPS:
            flat[str(key)] = value
        elif isinstance(value, dict):
            flat.update({f"{key}.{name}": item for name, item in value.items()})
        else:
            raise ValueError(f"config key '{key}' must hold options such as '{GROUPS[key]}', got {value!r}")
    return flat
