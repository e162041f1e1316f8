"""Experiments as YAML files: where to find them and how to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import configs
from ..common.checks import unknown
from ..common.values import read, shown

SHIPPED = Path(configs.__file__).parent

# Keys that hold options of their own.
GROUPS = ("env", "policy", "core", "algo", "ray", "eval", "task", "head", "training")


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


def read_config(path: Path) -> dict[str, Any]:
    """The options in a YAML file, with dotted names: ``env: {n_envs: 4}`` is ``env.n_envs``.

    :raises ValueError: if the file cannot be read or holds something else
    """
    try:
        content = read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read config {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"config {path} must be a mapping of options, got {shown(content)}")
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if key in GROUPS and not isinstance(value, dict):
            raise ValueError(f"{path}: config key '{key}' must hold options, got {shown(value)}")
        flat |= {f"{key}.{name}": item for name, item in value.items()} if key in GROUPS else {str(key): value}
    return flat
