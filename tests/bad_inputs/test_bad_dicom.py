"""DICOM series: each slice lies where its own header says, or one sentence says why the series cannot be read."""

from __future__ import annotations

import locale
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from medseg.data.dicom import read_series
from medseg.errors import DataError

UID = "1.2.826.0.1.3680043.2.1125"
PATIENT = "Secret^Name"


def turned(degrees: float) -> np.ndarray:
    """Axes of slices that are tilted about x."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def write(
    folder: Path,
    places: Sequence[Sequence[float]],
    axes: np.ndarray | None = None,
    *,
    first: int = 0,
    size: int = 8,
    spacing: float = 1.0,
    series: int = 1,
    **tags: str,
) -> None:
    """Slices of value 8 times their number at ``places`` (LPS mm)."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = np.eye(3) if axes is None else axes
    language = locale.setlocale(locale.LC_CTYPE)  # which writing DICOM turns to "C"
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, place in enumerate(places, first):
        image = sitk.GetImageFromArray(np.full((size, size), 8 * number, np.int16))
        image.SetSpacing((spacing, spacing))
        for tag, value in {
            "0008|0018": f"{UID}.{series}.{number + 1}",
            "0008|0060": "CT",
            "0010|0010": PATIENT,
            "0020|000d": f"{UID}.9",
            "0020|000e": f"{UID}.{series}",
            "0020|0013": str(number + 1),
            "0020|0032": "\\".join(f"{mm:.4f}" for mm in place),
            "0020|0037": "\\".join(f"{c:.6f}" for c in (*axes[:, 0], *axes[:, 1])),
            "0018|0050": "2",
            **{key[1:].replace("_", "|"): value for key, value in tags.items()},
        }.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"s{number:03}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_CTYPE, language)


def stack(axes: np.ndarray, count: int = 6, gap: float = 2.0) -> list[np.ndarray]:
    """Positions straight behind each other."""
    return [np.array([-10, 20, 5]) + gap * k * axes[:, 2] for k in range(count)]


@pytest.mark.parametrize("degrees", [0, 25])
def test_slices_lie_where_their_headers_say(degrees: float, tmp_path: Path) -> None:
    axes = turned(degrees)
    places = stack(axes)
    write(tmp_path, places, axes)
    volume, files = read_series(tmp_path)
    assert [file.name for file in files] == [f"s{k:03}.dcm" for k in range(6)]
    for k, place in enumerate(places):
        np.testing.assert_allclose(volume.TransformIndexToPhysicalPoint((0, 0, k)), place, atol=1e-3)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume)[:, 0, 0], 8 * np.arange(6))
    assert not volume.GetMetaDataKeys()


EYE = np.eye(3)
LINE = stack(EYE)
SIDE = np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]])
ODD: dict[str, tuple[list[dict[str, Any]], str]] = {
    "gantry tilt": (
        [{"places": LINE, "axes": turned(15)}],
        r"s001.dcm lies 1.93 mm behind s000.dcm and 0.52 mm aside \(15.0° of tilt\); expected .* straight .*dcm2niix",
    ),
    "slight tilt": ([{"places": stack(EYE, 20), "axes": turned(1)}], r"mm aside \(1.0° of tilt\)"),
    "localiser": (
        [{"places": LINE}, {"places": [(40, -30, 30)], "axes": SIDE, "first": 50}],
        "directions of columns and rows .* in s050.dcm, .* in the other 6 slices; expected equal ones .*localiser",
    ),
    "localiser across": (
        [{"places": LINE}, {"places": [(40, -30, 30)], "axes": np.diag([1, -1, -1]), "first": 50}],
        "directions of columns and rows .* in s050.dcm",
    ),
    "pixel spacing": (
        [{"places": LINE}, {"places": [(-10, 20, 17)], "spacing": 1.2, "first": 6}],
        "pixel spacing in mm 1.2, 1.2 in s006.dcm, 1, 1 in the other 6 slices; expected equal ones",
    ),
    "size": (
        [{"places": LINE}, {"places": [(-10, 20, 17)], "size": 10, "first": 6}],
        "columns×rows 10, 10 in s006.dcm, 8, 8 in the other 6 slices",
    ),
    "slope": (
        [{"places": LINE}, {"places": [(-10, 20, 17)], "first": 6, "_0028_1053": "2", "_0028_1052": "0"}],
        "rescale slope and intercept 2, 0 in s006.dcm, 1, 0 in the other 6 slices",
    ),
    "intercept": (
        [{"places": LINE}, {"places": [(-10, 20, 17)], "first": 6, "_0028_1053": "1", "_0028_1052": "-1024"}],
        "rescale slope and intercept 1, -1024 in s006.dcm",
    ),
    "missing slice": ([{"places": [*LINE[:3], *LINE[4:]]}], "4.00 mm between s002.dcm and s003.dcm, 2.00 mm elsewhere"),
    "position twice": ([{"places": [*LINE, LINE[2]]}], "s00[26].dcm and s00[26].dcm are at one position"),
    "gaps that grow": (
        [{"places": [(-10, 20, 2 * k + 0.01 * k * k) for k in range(12)]}],
        r"s00\d.dcm lies .* mm behind s000.dcm; expected .* from even gaps",
    ),
    "two series": (
        [{"places": LINE}, {"places": LINE, "first": 6, "series": 2}],
        "holds 2 DICOM series with 6, 6 slices; expected one series",
    ),
}


@pytest.mark.parametrize(("parts", "said"), ODD.values(), ids=ODD)
def test_72_a_series_that_is_no_straight_volume(parts: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    for part in parts:
        write(tmp_path, **part)
    with pytest.raises(DataError) as error:
        read_series(tmp_path)
    assert re.search(said, str(error.value)), error.value
    assert "Secret" not in str(error.value) and UID not in str(error.value)


@pytest.mark.parametrize("number", [3, 5])
def test_72_a_file_that_ends_early(number: int, tmp_path: Path) -> None:
    """The last slice would leave no gap behind."""
    write(tmp_path, LINE)
    file = tmp_path / f"s{number:03}.dcm"
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(DataError, match=f"{file.name} is damaged or not an image; expected slices alone. Copy it"):
        read_series(tmp_path)
