"""Converting many files: what is done is kept, what fails leaves the others alone."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from medseg.data.convert import convert_files
from medseg.errors import CasesFailed


def test_failures_leave_the_others_and_are_made_again(tmp_path: Path) -> None:
    pairs = [(number, tmp_path / "out" / f"{number}.txt") for number in range(6)]
    broken = {2, 4}

    def convert(number: int, target: Path) -> None:
        target.write_text(f"half of {number}")
        if number in broken:
            raise ValueError("bad header")
        target.write_text(str(number))

    with pytest.raises(CasesFailed, match=r"2 of 6 files .*2\.txt: bad header"):
        convert_files(pairs, convert)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.txt", "1.txt", "3.txt", "5.txt"]
    broken.clear()
    assert convert_files(pairs, convert) == 2
    assert [target.read_text() for _, target in pairs] == [str(number) for number in range(6)]


def test_no_more_sources_at_a_time_than_workers(tmp_path: Path) -> None:
    lock, active, most = threading.Lock(), 0, 0

    def convert(number: int, target: Path) -> None:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0.002)
        target.touch()
        with lock:
            active -= 1

    assert convert_files([(n, tmp_path / str(n)) for n in range(20)], convert, num_workers=2) == 20
    assert most <= 2
