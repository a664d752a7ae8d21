"""The small numbers in ``tests/parity`` are what ``cut_originals`` takes of the full sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cut_originals import CUTS, cut
from original_numbers import FOLDER


@pytest.mark.parametrize("name", CUTS)
def test_the_committed_numbers_are_cut_from_the_full_set(name: str, full_set: Path, tmp_path: Path) -> None:
    cut(name, full_set, tmp_path)
    assert (tmp_path / f"{name}.json").read_bytes() == (FOLDER / f"{name}.json").read_bytes()
    with np.load(tmp_path / f"{name}.npz") as again, np.load(FOLDER / f"{name}.npz") as committed:
        assert again.files == committed.files
        assert all(np.array_equal(again[kind], committed[kind]) for kind in again.files)
