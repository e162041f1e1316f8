"""Which command lines continue a run, and which would make it another one."""

from __future__ import annotations

from .config import TrainConfig
from .config_files import flatten
from .options import parse
from .run_folder import RunFolder
from .task_config import TaskTrainConfig

MAY_CHANGE = {
    TrainConfig: ("total_timesteps", "device", "precision", "algo.workers"),
    TaskTrainConfig: ("total_updates", "max_minutes", "device", "precision"),
}


def require_same_run(run: RunFolder, config: TrainConfig | TaskTrainConfig) -> None:
    """Only the length of a run and the hardware that it runs on may change when it is continued.

    :raises ValueError: naming the first option that differs from the run's own
    """
    may_change = MAY_CHANGE[type(config)]
    saved = flatten(parse(["--resume", str(run.path)]).config.as_dict())
    asked = flatten(config.as_dict())
    for key in (*asked, *saved):
        if key not in may_change and saved.get(key) != asked.get(key):
            raise ValueError(
                f"cannot continue {run.path} with {key} {asked.get(key)}: that run has {key} {saved.get(key)} "
                f"(only {', '.join(may_change)} may change)"
            )
