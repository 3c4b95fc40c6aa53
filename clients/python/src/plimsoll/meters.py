"""What this process has of the host's memory, and how the C library is made to give back what it keeps."""

from __future__ import annotations

import ctypes
import functools
import gc
from typing import Callable, Optional


def host_bytes() -> Optional[int]:
    """Bytes that only this process's going would free: anonymous and shared memory. None where /proc does not say.

    Pages of files are not counted: the kernel takes them back by itself. The figures of ``/proc/self/status`` are kept
    by the kernel; ``smaps_rollup`` would be exact, and walks all pages of a model to be so.
    """
    total = None
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total = (total or 0) + int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return total


@functools.lru_cache(maxsize=1)
def _malloc_trim() -> Optional[Callable[[int], int]]:
    """glibc's ``malloc_trim``; other C libraries have none."""
    try:
        function: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return function


def trim_malloc() -> int:
    """Has glibc return free memory of all its arenas to the kernel; returns the bytes, 0 where there is no glibc.

    glibc keeps what was freed below something that is still in use, which after the requests of a day can be gigabytes.
    """
    trim = _malloc_trim()
    if trim is None:
        return 0
    before = host_bytes()
    trim(0)
    return _less(before)


def collect_garbage() -> int:
    """Runs Python's garbage collector, then `trim_malloc`; returns the bytes of host memory that came back."""
    before = host_bytes()
    gc.collect()
    trim_malloc()
    return _less(before)


def _less(before: Optional[int]) -> int:
    after = host_bytes()
    return 0 if before is None or after is None else max(0, before - after)
