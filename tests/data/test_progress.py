"""Lines of long work over cases."""

from __future__ import annotations

import logging

import pytest

from medseg.data import progress


def test_long_work_is_told_ever_more_rarely(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = iter(range(1000))  # a second per look
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO, "medseg"):
        assert list(progress.told(range(40), "read", 40)) == list(range(40))
        assert list(progress.told("abc", "read", 3)) == ["a", "b", "c"]
    assert caplog.messages == ["read 6 of 40 cases", "read 14 of 40 cases", "read 31 of 40 cases"]
