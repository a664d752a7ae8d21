"""Peak memory of known allocations."""

from __future__ import annotations

import sys

import pytest
import torch

from medseg.engines.memory import PeakMemory

MIB = 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux records the peak of the resident set")


def test_a_known_peak_is_seen_after_it_is_freed() -> None:
    peak = PeakMemory("cpu")
    block = torch.ones(48 * MIB // 4)
    del block
    assert peak.read() == pytest.approx(48 * MIB, abs=4 * MIB)


def test_an_earlier_peak_does_not_count() -> None:
    block = torch.ones(48 * MIB // 4)
    del block
    peak = PeakMemory("cpu")
    small = torch.ones(8 * MIB // 4)
    assert peak.read() == pytest.approx(small.numel() * 4, abs=4 * MIB)


def test_without_a_record_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("medseg.engines.memory._CLEAR", type(tmp_path)(f"{tmp_path}/no/such/file"))
    assert PeakMemory("cpu").read() is None
