"""The energy meter adds up what the kernel counts, also where a counter starts again."""

from __future__ import annotations

from pathlib import Path

from medseg.engines.energy import EnergyMeter


def zone(folder: Path, name: str, microjoules: int) -> Path:
    path = folder / name
    path.mkdir(exist_ok=True)
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text("100000000\n")
    return path


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
        zone(tmp_path, name, 5_000_000)
    meter = EnergyMeter(tmp_path)
    assert meter.read() == 0.0
    zone(tmp_path, "intel-rapl:0", 7_000_000)
    zone(tmp_path, "intel-rapl:0:0", 9_000_000)
    zone(tmp_path, "intel-rapl:1", 5_500_000)
    assert meter.read() == 2.5


def test_a_counter_may_start_again(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 99_000_000)
    meter = EnergyMeter(tmp_path)
    zone(tmp_path, "intel-rapl:0", 1_000_000)
    assert meter.read() == 2.0


def test_what_cannot_be_read_is_not_measured(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path / "nothing").read() is None
    path = zone(tmp_path, "intel-rapl:0", 0)
    meter = EnergyMeter(tmp_path)
    (path / "energy_uj").unlink()
    assert meter.read() is None
