"""Every row of the table of bad inputs has a test that carries its number, or a reason why it has none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

# Rows whose tests stand with the part that answers them: file below tests/, and the test in it.
ELSEWHERE = {
    15: "workflows/test_stored_list.py::test_an_entry_that_leaves_the_root_is_refused",
    28: "transforms/test_augmentation.py::test_volume_smaller_than_the_window",
    29: "bad_inputs/test_bad_geometry.py::test_unusual_orientations_are_sound_and_reported_in_ras_order",
    59: "weights/test_files.py::test_missing_damaged_and_dangerous",
    60: "bundle/test_package.py::test_what_is_unsound_is_refused_and_leaves_nothing",
    61: "bundle/test_hostile_bundles.py::test_a_target_outside_the_list_is_never_imported",
    64: "bad_inputs/test_boundary.py::test_errors_of_the_system",
    65: "inferers/test_blend.py::test_memory_is_forecast",
    69: "workflows/test_moved_data.py::test_background_alone_is_warned_of",
    70: "workflows/test_scored_predictions.py::test_missing_and_surplus_files_are_named",
    71: "metrics/test_cases.py::test_one_rule_for_empty_masks_in_all_columns",
    72: "dicom/test_series_refused.py::test_a_series_that_is_no_volume",
    73: "dicom/test_infer_dicom.py::test_dicom_without_its_source_is_refused",
}

# Rows without a test, and why.
WITHOUT = {
    62: "medseg downloads nothing, so no download can fail.",
}


def _numbered() -> set[int]:
    """The rows that names of tests in this folder begin with, such as ``test_8_x`` and ``test_10_to_14_y``."""
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
