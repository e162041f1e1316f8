"""Workers that play for one learner: in its own process, or as Ray actors on any number of machines."""

from __future__ import annotations

from typing import Any, Literal

from .fleet import Fleet, LocalFleet

Launcher = Literal["local", "ray"]


def start_fleet(launcher: Launcher, *args: Any) -> Fleet:
    """Start workers.

    :param args: of ``LocalFleet`` or ``RayFleet``
    :raises ValueError: if Ray is asked for and not installed
    """
    if launcher == "local":
        return LocalFleet(*args)
    require_ray()
    from .ray_fleet import RayFleet

    return RayFleet(*args)


def require_ray() -> None:
    """:raises ValueError: if Ray is not installed"""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise ValueError("launcher 'ray' needs the extra [ray]: pip install 'relmem[ray]'") from error


__all__ = ["Fleet", "Launcher", "LocalFleet", "require_ray", "start_fleet"]
