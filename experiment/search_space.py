"""What is tried of each option when a training is tuned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..common.checks import require_choice
from ..common.options import Option, adapt, fits, require_option
from ..common.values import read, shown

if TYPE_CHECKING:
    from optuna import Trial

SHIPPED = Path(__file__).with_name("search_spaces.yaml")


class Numbers(NamedTuple):
    """A range of numbers."""

    low: float
    high: float
    log: bool = False

    def draw(self, trial: Trial, name: str) -> str:
        """A number of it, as one would type it."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return repr(trial.suggest_int(name, self.low, self.high, log=self.log))
        return f"{trial.suggest_float(name, self.low, self.high, log=self.log):.4g}"

    def examples(self) -> list[Any]:
        """Values that have to be possible."""
        return [self.low, self.high]


class Choices(NamedTuple):
    """Values of which one is taken."""

    values: tuple[Any, ...]

    def draw(self, trial: Trial, name: str) -> str:
        """One of them, as one would type it."""
        return str(trial.suggest_categorical(name, [text(value) for value in self.values]))

    def examples(self) -> list[Any]:
        """Values that have to be possible."""
        return list(self.values)


Space = Mapping[str, Numbers | Choices]


def text(value: Any) -> str:
    """A value as one would type it behind a flag."""
    return value if isinstance(value, str) else shown(value)


def shipped_space(kind: str, core: str) -> Space:
    """What comes with relmem for a kind of training (``ppo``, ``a3c``, ``supervised``) and a core."""
    content = read(SHIPPED.read_text(encoding="utf-8"))
    return _space(content[kind] | content["cores"].get(core, {}), SHIPPED)


def read_space(path: Path) -> Space:
    """What a file holds.

    :raises ValueError: if it cannot be read, or is of another form
    """
    try:
        content = read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read search space {path}: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"search space {path} must be a mapping of options, got {shown(content)}")
    return _space(content, path)


def _space(content: Mapping[str, Any], path: Path) -> Space:
    space: dict[str, Numbers | Choices] = {}
    for name, given in content.items():
        keys = set(given) if isinstance(given, dict) else set()
        if keys == {"choices"} and isinstance(given["choices"], list) and given["choices"]:
            space[name] = Choices(tuple(given["choices"]))
        elif {"low", "high"} <= keys <= {"low", "high", "log"} and _is_range(**given):
            space[name] = Numbers(**given)
        else:
            raise ValueError(
                f"{path}: {name} needs a range such as {{low: 1e-4, high: 1e-2, log: true}} or choices such as "
                f"{{choices: [1, 2]}}, got {shown(given)}"
            )
    return space


def _is_range(low: Any, high: Any, log: Any = False) -> bool:
    return fits(float, low) and fits(float, high) and low <= high and isinstance(log, bool)


def require_space(space: Space, options: Mapping[str, Option]) -> None:
    """Hold a search space to the options of a training.

    :raises ValueError: for what is no option, or no value of it
    """
    for name, values in space.items():
        require_choice("option in the search space", name, options)
        for value in values.examples():
            require_option(name, options[name].hint, adapt(options[name].hint, value), shown)
        if isinstance(values, Numbers) and values.log and values.low <= 0:
            raise ValueError(f"{name} is drawn by its logarithm, and has to be above 0: got low {values.low}")
