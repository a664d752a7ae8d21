"""Series that are not a volume, and what is damaged: one sentence with slice numbers, and nothing of the patient."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_dicom import PATIENT, STUDY, pet_tags, uid, write_series

from medseg.cli import main
from medseg.data.files import Unreadable, read_grid, read_volume

SIX, ONE = np.zeros((8, 8, 6), int), np.zeros((8, 8, 1), int)


def line(count: int = 6) -> list[list[float]]:
    return [[-10, 20, 2.0 * k] for k in range(count)]


ODD: dict[str, tuple[list[dict[str, Any]], str]] = {
    "pixel spacing": (
        [{"voxels": SIX}, {"voxels": ONE, "origin": (-10, 20, 17), "spacing": (1.2, 1.2, 2), "first": 7}],
        "pixel spacing in mm 1.2×1.2 in slice 7, 1×1 elsewhere; expected equal ones",
    ),
    "size": (
        [{"voxels": SIX}, {"voxels": np.zeros((10, 10, 1), int), "origin": (-10, 20, 17), "first": 7}],
        "columns×rows 10×10 in slice 7, 8×8 elsewhere",
    ),
    "missing slice": (
        [{"voxels": SIX[..., :5], "places": [p for k, p in enumerate(line()) if k != 3]}],
        "4.00 mm between slices 3 and 4, 2.00 mm elsewhere; expected even gaps. A slice is missing",
    ),
    "position twice": (
        [{"voxels": SIX}, {"voxels": ONE, "origin": (-10, 20, 9), "first": 7}],
        r"slices 3 and 7 are at one position \(1 positions in all\); expected each slice once",
    ),
    "gaps that grow": (
        [{"voxels": np.zeros((8, 8, 12), int), "places": [(-10, 20, 2 * k + 0.01 * k * k) for k in range(12)]}],
        r"slice \d lies .* mm behind slice 1; expected .* from even gaps",
    ),
    "aside": (
        [{"voxels": SIX, "places": [(-10 + 3 * (k == 2), 20, 2 * k) for k in range(6)]}],
        r"slice 3 lies 3.00 pixels aside of the line through the others",
    ),
    "slope": (
        [{"voxels": SIX, "scales": [(1, 0)] * 6, "tags": {"RescaleSlope": 0}}],
        "has rescale slope 0, intercept 0, .*expected numbers, a slope other than 0",
    ),
    "no orientation": (
        [{"voxels": SIX, "tags": {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}}],
        r"has rows and columns along \(0, 0, 0\) and \(0, 0, 0\); expected two directions",
    ),
    "several studies": (
        [{"voxels": SIX}, {"voxels": SIX, "study": uid("other"), "first": 10}],
        "holds 2 DICOM series .*; expected one. Name it as",
    ),
    "PET without a weight": (
        [{"voxels": SIX, "modality": "PT", "tags": pet_tags(PatientWeight=None, CorrectedImage=["DECY"])}],
        "PET without PatientWeight, CorrectedImage with ATTN and DECY; expected them for SUVbw",
    ),
    "PET in counts": ([{"voxels": SIX, "modality": "PT", "tags": pet_tags(Units="CNTS")}], "PET in units 'CNTS'"),
    "PET before its injection": (
        [{"voxels": SIX, "modality": "PT", "tags": pet_tags() | {"SeriesTime": "105000", "AcquisitionTime": "105000"}}],
        "the PET scan begins 1430 minutes or 13.0 half-lives after the injection; expected 0 to 10 half-lives",
    ),
    "colour": ([{"voxels": SIX, "tags": {"SamplesPerPixel": 3}}], r"holds no DICOM image \(6 images in colour"),
}


@pytest.mark.parametrize(("parts", "said"), ODD.values(), ids=ODD)
def test_a_series_that_is_no_volume(parts: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    for part in parts:
        write_series(tmp_path / "images", **part)
    with pytest.raises(Unreadable) as error:
        read_volume(tmp_path / "images")
    sentence = ". ".join(error.value.args)
    assert re.search(said, sentence), sentence
    assert PATIENT not in sentence and STUDY not in sentence


def test_files_that_end_early(tmp_path: Path) -> None:
    """A header is there, the pixels are not; then not even that."""
    last = write_series(tmp_path, SIX)[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:-60])
    with pytest.raises(Unreadable, match="the pixels of slice 6 cannot be read"):
        read_volume(tmp_path)
    for length in (400, 800, whole.index(b"\x28\x00\x10\x00")):  # before and behind the series' UID, before its size
        last.write_bytes(whole[:length])
        with pytest.raises(Unreadable, match="s006.dcm is damaged or not an image"):
            read_volume(tmp_path)
    last.write_bytes(b"no DICOM at all")
    with pytest.raises(Unreadable, match="s006.dcm is damaged or not an image"):
        read_grid(tmp_path)


def test_what_holds_no_series(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Unreadable, match="holds no DICOM image; expected slices with their place"):
        read_volume(tmp_path / "empty")
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(Unreadable, match="is not a valid zip archive"):
        read_volume(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(Unreadable, match="holds no DICOM image"):
        read_volume(tmp_path / "b.zip")
    with pytest.raises(Unreadable, match="not found"):
        read_volume(tmp_path / "none" / "CT_0123456789.series")
    write_series(tmp_path / "ct", SIX)
    with pytest.raises(Unreadable, match="series CT_0123456789 is not where it was listed"):
        read_volume(tmp_path / "ct" / "CT_0123456789.series")


@pytest.mark.parametrize("missing", ["pydicom", "highdicom"])
def test_without_the_extra(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from medseg.dicom import paths

    found = paths.importlib.util.find_spec
    monkeypatch.setattr(paths.importlib.util, "find_spec", lambda name: None if name == missing else found(name))
    write_series(tmp_path / "ct", SIX)
    sentence = rf"DICOM needs the extra `dicom` ({missing} not installed): pip install 'medseg[dicom]'."
    assert main(["datalist", str(tmp_path / "ct"), "--output", str(tmp_path / "list.json")]) == 2
    assert sentence in capsys.readouterr().err
    with pytest.raises(Unreadable) as error:
        read_volume(tmp_path / "ct")
    assert missing in str(error.value)
