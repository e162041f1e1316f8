"""Where figures come from: the commit, the processor, the versions of packages."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("relmem", "torch", "stable-baselines3", "sb3-contrib", "gymnasium", "ale-py", "numpy")

COMMIT = "# relmem at commit"  # how the line of versions.txt begins that names it


def commit() -> str | None:
    """The commit of the clone that this code runs from, with a "+" where files differ from it; None elsewhere."""
    try:
        top = _git("rev-parse", "--show-toplevel")
        # An installed relmem may lie in somebody else's repository.
        return _git("describe", "--always", "--dirty=+", "--exclude=*") if Path(top) == ROOT.resolve() else None
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*command: str) -> str:
    return subprocess.run(["git", *command], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


def processor() -> str:
    """The processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> str:
    """As it is written to ``versions.txt``."""
    source = commit()
    return "\n".join(
        [
            *([f"{COMMIT} {source}"] if source else []),
            f"# Python {platform.python_version()} on {platform.platform()}",
            f"# {processor()}",
            *(f"{name}=={metadata.version(name)}" for name in PACKAGES),
            "",
        ]
    )
