"""Every row of the table of bad inputs has a test that carries its number, or a reason why it has none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

# Rows whose tests stand with the part that answers them: file below tests/, and the test in it.
ELSEWHERE = {}

# Rows about what medseg does not do.
WITHOUT = {
    28: "A volume smaller than the patch is not an error: every network test feeds sizes below its patch size.",
}


def _numbered() -> set[int]:
    """The rows that names of tests in this folder and in ``tests/fuzz`` begin with, such as ``test_10_to_14_x``."""
    found: set[int] = set()
    for file in TESTS.glob("bad_inputs/test_*.py"):
        for name in re.findall(r"^def test_(\d[\d_to]*)_", file.read_text(encoding="utf-8"), re.MULTILINE):
            ends = [int(number) for number in re.findall(r"\d+", name)]
            found |= set(range(ends[0], ends[-1] + 1)) if "to" in name else set(ends)
    return found


@pytest.mark.parametrize("row", range(1, 74))
def test_every_row_is_answered(row: int) -> None:
    if row in ELSEWHERE:
        file, test = ELSEWHERE[row].split("::")
        assert f"def {test}(" in (TESTS / file).read_text(encoding="utf-8")
    else:
        assert (row in _numbered()) != (row in WITHOUT), row
