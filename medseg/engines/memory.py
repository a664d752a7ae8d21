"""The peak of memory above the level before, as the system or the GPU's allocator counts it."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

import torch

__all__ = ["MEMORY_CONVENTION", "PeakMemory"]

MEMORY_CONVENTION = {
    "cpu": "the largest resident set of the process above the level before (Linux: VmHWM, reset through clear_refs)",
    "cuda": "the largest amount of memory that torch's allocator handed out above the level before",
}
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures from its making on; ``read()`` gives the bytes above the level at that time.

    On a CPU the whole process counts, so nothing else should run in it; memory that the C library keeps after a
    ``free`` is given back first, since its use would not show. ``None`` where the system has no such record (only
    Linux has).
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.level: int | None = torch.cuda.memory_allocated(self.device)
            return
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
        try:
            _CLEAR.write_text("5")
            self.level = _status("VmRSS")
        except OSError:
            self.level = None

    def read(self) -> int | None:
        """Peak since the start minus the level at the start, in bytes."""
        if self.level is None:
            return None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_allocated(self.device) - self.level
        return max(0, _status("VmHWM") - self.level)


def _status(key: str) -> int:
    """A size of ``/proc/self/status`` in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(key + ":"))
    return int(line.split()[1]) * 1024
