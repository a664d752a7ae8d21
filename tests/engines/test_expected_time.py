"""The expected time of a training is told once, from its first iterations."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medseg.engines import log


def test_the_expected_time_is_told_once(tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 20.0])  # the third iteration and the eighth: 2 s each
    monkeypatch.setattr(log.time, "monotonic", lambda: next(clock))
    removed: list[Any] = []
    state = SimpleNamespace(max_epochs=10, epoch_length=100, iteration=0)
    engine = SimpleNamespace(state=state, remove_event_handler=lambda handler, event: removed.append(handler))
    told = log.RunLog(tmp_path, None, tracker="none")  # type: ignore[arg-type]
    with caplog.at_level("INFO", logger="medseg"):
        for state.iteration in range(1, 9):
            told._tell_time(engine)
    assert [record.getMessage() for record in caplog.records] == [
        "about 33 min: 992 iterations of 2 s, and the validations"
    ]
    assert removed == [told._tell_time]
