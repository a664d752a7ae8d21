"""Peak memory of a call, above the state before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def allocated_mib(run: Callable[[], object]) -> float:
    """Peak of the memory that torch allocated and had not yet freed."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    current = peak = 0
    for event in sorted(
        (e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()
    ):
        current += event.nbytes()
        peak = max(peak, current)
    return peak / 2**20


def resident_mib(run: Callable[[], object]) -> float:
    """Peak of the resident set above what it was before."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1])
