"""Memory of the process, for training on the CPU."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3)."""


def keep_freed_memory() -> None:
    """Let glibc's allocator keep large blocks for the next step. By default it gives every tensor above 32 MiB back to
    the system, which clears it anew for the next one: a third of the time of a training step on the CPU
    (benchmarks/trunks.py). Elsewhere than on glibc nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def resident() -> float:
    """Megabytes of this process that are in memory, as Linux counts them; 0 elsewhere."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0
