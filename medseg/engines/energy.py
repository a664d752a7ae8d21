"""The energy that the machine's processors took, where Linux tells it (powercap, RAPL)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["EnergyMeter"]

_COUNTERS = Path("/sys/class/powercap")


class EnergyMeter:
    """Adds up the energy of all processor packages: of the whole machine, whoever uses it, without GPUs.

    A counter starts again at 0 after some minutes to hours, so ``read`` has to be called more often than that. Most
    systems let only their administrator read it.

    Args:
        counters: folder of the kernel's power zones.
    """

    def __init__(self, counters: Path = _COUNTERS) -> None:
        self._joules = 0.0
        self._last: dict[Path, int] = {}
        for zone in sorted(counters.glob("intel-rapl:*")):
            if zone.name.count(":") == 1 and (value := _number(zone / "energy_uj")) is not None:
                self._last[zone] = value

    def read(self) -> float | None:
        """Joules since the meter was made; ``None`` where nothing can be read."""
        for zone, before in list(self._last.items()):
            now = _number(zone / "energy_uj")
            if now is None:
                self._last.clear()
                break
            around = (_number(zone / "max_energy_range_uj") or 0) if now < before else 0
            self._joules += max(0, now - before + around) / 1e6
            self._last[zone] = now
        return self._joules if self._last else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
