"""Values as text. There is one reader: the same text means the same in a config file, on a flag and in a saved config,
and what is written reads back as the same."""

from __future__ import annotations

import re
from typing import Any

import yaml

# YAML 1.2 knows these as numbers too, PyYAML only 1.0e+3 and 0.5.
_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+|[-+]\.\d[\d_]*")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, (key, _) in enumerate(node.value):
            if key.value in keys[:i] and not key.tag.endswith(":merge"):
                raise yaml.YAMLError(f"the key '{key.value}' is there twice, again on line {key.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would take for a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(f"(?:{_NUMBER.pattern})$"), list("-+.0123456789")
    )


def read(text: str) -> Any:
    """The value that a text stands for.

    :raises ValueError: if it is no YAML
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date that there is not
        raise ValueError(f"this is no YAML: {' '.join(str(error).split())}") from error


def write(value: Any) -> str:
    """The text of a mapping, over several lines."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def shown(value: Any) -> str:
    """A value as one would type it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
