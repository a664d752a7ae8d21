"""Label names that tell left from right, in the spellings of public data sets."""

from __future__ import annotations

import pytest

from medseg.labels.sides import tells_sides


@pytest.mark.parametrize(
    "names",
    [
        ["left kidney"], ["left_kidney"], ["kidney_left", "liver"], ["LeftLung"], ["lungRight"], ["LEFT KIDNEY"],
        ["kidney.L", "kidney.R"], ["Lung L", "Lung R"], ["ctx-lh-cuneus"], ["Right-Hippocampus"],
        ["Kidney_LT", "Kidney_RT"], ["leftlung", "rightlung"],
    ],
)  # fmt: skip
def test_they_tell(names: list[str]) -> None:
    assert tells_sides(names)


@pytest.mark.parametrize(
    "names", [["liver"], ["vertebrae_L1", "vertebrae_L2"], ["L1", "R2"], ["bright spot"], ["leftover"], ["L"], []]
)
def test_they_do_not(names: list[str]) -> None:
    assert not tells_sides(names)
