"""How the C library treats the memory of freed tensors."""

from __future__ import annotations

import ctypes
import platform

# From malloc.h of the GNU C library, and the largest threshold that it takes for mapping.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 2**25


def keep_freed_memory() -> None:
    """Let this process reuse up to a gigabyte of freed memory instead of giving it back to the system.

    Every minibatch frees and allocates the same tens of megabytes. Given back, their pages have to be mapped and
    cleared anew each time, which takes longer than much of what is computed in them. Works with the GNU C library;
    elsewhere it does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
