"""Whether a run has room on this machine: estimates from the sizes of arrays, before anything of that size is made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T", bound=nn.Module)

FLOAT = 4  # bytes
ADAM = 4  # copies of the weights: themselves, their gradients, and two that Adam keeps
PROCESS = 150e6  # bytes that a further Python process with PyTorch takes
ATARI = 1.4e6  # bytes of one emulator
ENVIRONMENT = 5e3  # bytes of one of the smallest other environments
GB = 1e9


def require_room(needs: dict[str, float], available: float | None = None) -> None:
    """Refuse a run that the machine's memory cannot hold.

    :param needs: bytes, by the options that they come from
    :param available: bytes that there are; None: of main memory
    :raises ValueError: naming the greatest needs
    """
    available = available_memory() if available is None else available
    total = sum(needs.values())
    if available is None or total <= available:
        return
    greatest = sorted(needs, key=lambda name: -needs[name])[:2]
    reasons = " and ".join(f"{needs[name] / GB:,.1f} GB for {name}" for name in greatest)
    raise ValueError(
        f"this run would take {total / GB:,.1f} GB of memory ({reasons}), but {available / GB:,.1f} GB are available: "
        "choose smaller ones"
    )


def available_memory() -> float | None:
    """Bytes of main memory that this process may still take, in a container too; None where the system does not say."""
    free, group = [], Path("/sys/fs/cgroup")
    with suppress(OSError, KeyError, ValueError):
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free.append(1024 * float(fields["MemAvailable"].split()[0]))
    with suppress(OSError, KeyError, ValueError):  # ValueError: no limit, which is called "max"
        limit, used = (float((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        files = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["file"]
        free.append(limit - used + float(files))  # which give way
    return min(free, default=None)


def without_content(make: Callable[[], T]) -> T | None:
    """A module whose tensors have shapes, but take no memory; None where it cannot be made in that way.

    :raises ValueError: if its arguments are out of range
    """
    try:
        with torch.device("meta"):
            return make()
    except ValueError:
        raise
    except Exception:  # of a core of the user's, which looks at numbers while it is made
        return None


def weights(network: nn.Module, copies: int) -> float:
    """Bytes of all parameters, in so many copies."""
    return copies * FLOAT * sum(parameter.numel() for parameter in network.parameters())
