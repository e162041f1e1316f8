"""Workers that play for one learner: in its own process, or as Ray actors on any number of machines."""

from __future__ import annotations

import os
from typing import Literal

from ...common.output import stage
from .fleet import Fleet, Job, LocalFleet

Launcher = Literal["local", "ray"]


def start_fleet(launcher: Launcher, job: Job, n_workers: int, min_workers: int, seed: int) -> Fleet:
    """Start workers; see ``LocalFleet`` and ``RayFleet``. Of those in this process none is lost: ``min_workers`` is
    Ray's.

    :raises ValueError: if Ray is asked for, and not installed
    """
    if launcher == "local":
        return LocalFleet(job, n_workers, seed)
    require_ray()
    from .ray_fleet import RayFleet  # which imports Ray

    return RayFleet(job, n_workers, min_workers, seed)


def connect(address: str | None, n_workers: int) -> None:
    """Connect this process to a Ray cluster, unless it is: to that of an address or of RAY_ADDRESS, or else to a new
    one on this machine, which ends with this process.

    :param address: host:port, or auto: that which runs on this machine
    :param n_workers: for which a new one has room, however few processors there are
    :raises ValueError: if Ray is not installed, or there is no cluster
    """
    require_ray()
    import ray

    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    new = {} if address else {"num_cpus": n_workers, "include_dashboard": False}
    try:
        with stage("connecting to Ray"):
            # "local" and not None, which would be a cluster that somebody has started on this machine.
            ray.init(address or "local", logging_level="ERROR", log_to_driver=False, **new)  # type: ignore[arg-type]
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"connect to a Ray cluster at '{address}'" if address else "start Ray"
        raise ValueError(f"cannot {where}: {' '.join(str(error).split())}") from error


def require_ray() -> None:
    """:raises ValueError: if Ray is not installed"""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise ValueError("launcher 'ray' needs the extra [ray]: pip install 'relmem[ray]'") from error


__all__ = ["Fleet", "Launcher", "LocalFleet", "connect", "require_ray", "start_fleet"]
