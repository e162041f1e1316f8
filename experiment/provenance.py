"""Where figures come from: the commit, the processor, the versions of packages."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("relmem", "torch", "stable-baselines3", "sb3-contrib", "gymnasium", "ale-py", "numpy")

COMMIT = "# relmem at commit"  # how the line of versions.txt begins that names it


@cache  # a process goes on with the code that it began with
def commit() -> str | None:
    """The commit of the clone that this code runs from, with a "+" where code differs from it; None elsewhere."""
    try:
        if Path(_git("rev-parse", "--show-toplevel")) != ROOT.resolve():
            return None  # an installed relmem may lie in somebody else's repository
        changed = _git("status", "--porcelain", "--", "*.py", "configs")
        return _git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*command: str) -> str:
    # Without the variables by which a hook of another repository would point at that one.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    result = subprocess.run(["git", *command], capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return result.stdout.strip()


def processor() -> str:
    """The processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> str:
    """As it is written to ``versions.txt``."""
    lines = [f"{COMMIT} {commit()}"] if commit() else []
    lines += [f"# Python {platform.python_version()} on {platform.platform()}", f"# {processor()}"]
    return "\n".join([*lines, *(f"{name}=={metadata.version(name)}" for name in PACKAGES), ""])
