"""HD95 and surface Dice by area: the original's numbers, and a cube by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from full_set import FULL_SET

from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.metrics import area_surface_scores, case_scores
from medseg.metrics.catalog import surface_metrics

FIXTURES = FULL_SET / "ibm"
SPACE = LabelSpace.from_table({"labels": {"background": 0, "a": 1}})


def cube(start: int, length: int = 6, size: int = 20) -> np.ndarray:
    mask = np.zeros((size,) * 3, dtype=bool)
    mask[start : start + length, 4:10, 4:10] = True
    return mask


@pytest.mark.usefixtures("full_set")
def test_numbers_of_the_original() -> None:
    arrays = np.load(FIXTURES / "metrics.npz")
    for row in json.loads((FIXTURES / "metrics.json").read_text()):
        prediction, reference = (np.isin(arrays[f"{name}{row['case']}"], row["labels"]) for name in ("pred", "true"))
        hd95, surface_dice = area_surface_scores(prediction, reference, row["spacing_zyx"])
        assert hd95 == pytest.approx(row["hd95"], abs=1e-12, nan_ok=True)
        assert surface_dice == pytest.approx(row["surface_dice"], abs=1e-8, nan_ok=True)


def test_a_shifted_cube() -> None:
    """Two voxels of 3 mm along axis 0: its two faces of that axis, a third of the area, are 6 mm off."""
    hd95, _ = area_surface_scores(cube(2), cube(4), (3.0, 1.0, 1.0), opening=False)
    assert hd95 == 6.0
    assert area_surface_scores(cube(2), cube(4), (3.0, 1.0, 1.0), tolerance=6.0)[1] == 1.0
    assert area_surface_scores(cube(2), cube(4), (3.0, 1.0, 1.0), tolerance=5.9)[1] < 1.0
    assert area_surface_scores(cube(2), cube(2), (3.0, 1.0, 1.0), opening=False) == (0.0, 1.0)


@pytest.mark.parametrize("start", [0, 14])
def test_masks_at_the_border(start: int) -> None:
    """A mask at the image's border has the same surface as one inside."""
    grown = np.pad(cube(start), 3), np.pad(cube(start, 5), 3)
    assert area_surface_scores(cube(start), cube(start, 5), (1, 1, 1)) == area_surface_scores(*grown, (1, 1, 1))


def test_specks_count_in_the_surface_dice_only() -> None:
    prediction = cube(4)
    prediction[19, 19, 19] = True
    hd95, surface_dice = area_surface_scores(prediction, cube(4), (1, 1, 1))
    assert hd95 == 1.0 and surface_dice < 1.0  # the opening also rounds the cube's edges
    assert area_surface_scores(prediction, cube(4), (1, 1, 1), opening=False)[0] == 0.0
    two = cube(4) | np.roll(cube(4, 2), 9, axis=0)
    assert area_surface_scores(two, cube(4), (1, 1, 1), opening=False)[0] > 4


def test_empty_masks() -> None:
    empty = np.zeros((20,) * 3, dtype=bool)
    assert area_surface_scores(empty, cube(4), (1, 1, 1)) == (math.inf, 0.0)
    assert all(math.isnan(score) for score in area_surface_scores(cube(4), empty, (1, 1, 1)))


def test_in_a_cases_scores() -> None:
    prediction, reference = cube(2).astype(np.int16), cube(4).astype(np.int16)
    spacing = (3.0, 1.0, 1.0)
    row = case_scores(prediction, reference, SPACE, spacing, metrics=surface_metrics(None, "area_opened"))["a"]
    assert (row["hd95_area_opened"], row["surface_dice_area_at_voxel"]) == area_surface_scores(
        cube(2), cube(4), spacing
    )
    with pytest.raises(ConfigError, match="Known: voxels, pooled, area, area_opened"):
        surface_metrics(1.0, "volume")
