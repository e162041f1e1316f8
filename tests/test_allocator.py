"""Memory of freed tensors is reused: counted in pages that the system had to map."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from relmem.agents.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def minibatch():
    [torch.ones(2_000_000) for _ in range(20)]  # 160 MB, a tensor of 8 MB at a time
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = minibatch()
print(minibatch() - first)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_freed_memory_is_not_mapped_anew():
    def faults(mode):
        return int(subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, check=True).stdout)

    given_back, kept = faults("give back"), faults("keep")
    assert kept * 10 < given_back
