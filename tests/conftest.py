"""Set-up shared by all tests."""

import os

# Before the first import of NumPy or torch, and for every process that a test starts: one thread, since several that
# wait for each other by spinning take a hundred times as long on a busy machine.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import signal
import subprocess
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import hypothesis
import pytest
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from relmem.agents import SupervisedTrainer


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Every test draws the same numbers on one thread, whichever tests ran before it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


# A process that a script starts in the background is deaf to Ctrl-C, one below nohup to the end of its terminal, and so
# would be the runs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# The same examples every time, however long the machine takes for them.
hypothesis.settings.register_profile("relmem", derandomize=True, deadline=None)
hypothesis.settings.load_profile("relmem")


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="skip what learns or starts Python, and tests marked as slow")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--quick"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(autouse=True, scope="session")
def _quick(request):
    """With ``--quick``, a test or fixture that is about to learn or to start Python ends there, as skipped."""

    def ends(owner, method_name, why, when=lambda *args: True):
        method = getattr(owner, method_name)

        def skip_or_call(*args, **kwargs):
            if when(*args):
                pytest.skip(why)
            return method(*args, **kwargs)

        patch.setattr(owner, method_name, skip_or_call)

    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--quick"):
            ends(BaseAlgorithm, "_setup_learn", "learns")
            ends(SupervisedTrainer, "learn", "learns")
            ends(BaseProcess, "start", "starts a process")
            ends(subprocess.Popen, "__init__", "starts a process", when=_starts_python)
        yield


def _starts_python(_, command, *rest):
    """Whether a command is Python or a script of its environment; libraries ask small programs such as ``git``."""
    program = command if isinstance(command, str) else os.fspath(command[0])
    return Path(program).name.startswith("python") or Path(program).parent == Path(sys.executable).parent
