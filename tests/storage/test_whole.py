"""Files are JSON that every reader takes."""

from __future__ import annotations

import math
from pathlib import Path

from medseg.storage import read_json, write_json


def test_undefined_numbers_become_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"mean": math.nan, "rows": [(0.5, math.inf)], "cases": 2})
    assert read_json(tmp_path / "a.json") == {"mean": None, "rows": [[0.5, None]], "cases": 2}
