"""Run-length codes: by hand, there and back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import DataError
from medseg.submission.run_length import decode_runs, encode_runs


def test_by_hand() -> None:
    mask = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1]])
    assert encode_runs(mask) == "2 3 9 1"
    assert encode_runs(mask, by_columns=True) == "2 1 4 1 7 1 9 1"
    assert encode_runs(np.zeros((2, 3))) == "" and encode_runs(np.full((2, 3), 255)) == "1 6"


@pytest.mark.parametrize("by_columns", [False, True])
def test_there_and_back(by_columns: bool) -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        mask = rng.random((13, 29)) < share
        code = encode_runs(mask, by_columns=by_columns)
        assert np.array_equal(decode_runs(code, (13, 29), by_columns=by_columns), mask)


@pytest.mark.parametrize("code", ["1", "1 x", "0 2", "5 2", "1 0", "1 3 3 1", "3 1 1 1"])
def test_codes_that_do_not_fit(code: str) -> None:
    with pytest.raises(DataError, match="Run-length"):
        decode_runs(code, (2, 3) if code != "5 2" else (2, 2))
