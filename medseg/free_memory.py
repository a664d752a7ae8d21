"""How much memory the machine can still give."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["GIB", "available_gib"]

GIB = 2**30
_UNKNOWN = 8.0
_TABLE = Path("/proc/meminfo")


def available_gib() -> float:
    """GiB of memory that a program can have now: what is free, and on Linux also what files are only cached in."""
    try:
        lines = _TABLE.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) / 2**20
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    except (ValueError, OSError):
        return _UNKNOWN
