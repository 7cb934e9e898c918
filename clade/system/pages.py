"""Memory that stays with the process: large tensors without fresh pages every time."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
_NEVER = 2**31 - 1


def can_keep_pages() -> bool:
    """Whether the C library is glibc, whose allocator can be told."""
    return platform.libc_ver()[0] == "glibc"


@cache
def keep_pages() -> bool:
    """Tell glibc's allocator to keep freed memory for the next large tensor instead of giving it back to the system.

    By default every tensor past some MiB is mapped afresh, and the system clears its pages one by one when they are
    first written to: a part of a forward (docs/performance.md). The setting holds for the whole process, whose
    memory then never shrinks below its peak, so the command line makes it for its own process, and a program that uses
    the library decides itself. Elsewhere than on glibc nothing happens.

    Returns:
        whether it is in effect.
    """
    if not can_keep_pages():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
