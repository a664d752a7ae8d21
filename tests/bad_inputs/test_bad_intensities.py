"""Intensities (numbers 31 to 33 and 35 of the matrix)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def test_31_nan_and_infinite_voxels(study: Any) -> None:
    values = study.random.normal(size=(12, 10, 20)).astype(np.float32)
    values.reshape(-1)[:1204] = np.nan
    values[-1, -1, -1] = np.inf
    case = study.case("a", image=study.save("a.nii.gz", values), label=study.label("l.nii.gz", (12, 10, 20)))
    result = study.check([case, study.case("b")])
    assert result.status == 3
    result.has("a", "1 204 NaN and 1 infinite voxels; numbers are expected", "Replace them in the file")


def test_31_32_name_the_channel(study: Any) -> None:
    nan = study.random.normal(size=(12, 10, 8)).astype(np.float32)
    nan[0, 0, 0] = np.nan
    images = [study.image("t1.nii.gz"), study.save("t2.nii.gz", nan), study.save("t3.nii.gz", np.zeros_like(nan))]
    names = {"0": "T1", "1": "T2", "2": "FLAIR"}
    sound = [study.image(f"s{i}.nii.gz") for i in range(3)]
    result = study.check(
        [study.case("a", image=images, case_id="a"), study.case("b", image=sound, case_id="b")],
        modality=names,
        validation=[],
    )
    assert result.status == 3
    assert len(result.rows()) == 2
    result.has("a", "1 NaN voxels in channel 1 (T2); numbers are expected", "Replace them")
    result.has("a", "all voxels equal 0 in channel 2 (FLAIR): normalisation undefined", "remove the case")


def test_32_constant_image(study: Any) -> None:
    constant = study.save("a.nii.gz", np.full((12, 10, 8), 7, np.int16))
    result = study.check([study.case("a", image=constant), study.case("b")])
    assert result.status == 3
    result.has("a", "all voxels equal 7: normalisation undefined", "Export the image again, or remove the case.")


@pytest.mark.parametrize(("modality", "warned"), [("CT", True), ("MR T1", False)])
def test_33_ct_in_unit_range(study: Any, modality: str, warned: bool) -> None:
    scaled = study.save("a.nii.gz", np.linspace(-1, 1, 960, dtype=np.float32).reshape(12, 10, 8))
    cases = [study.case("a", image=scaled), study.case("b")]
    result = study.check(cases, modality={"0": modality})
    assert result.status == 0
    if not warned:
        assert "range" not in result.log
        return
    result.warns("a", "range -1…1; Hounsfield units (about -1024…3071) are expected of CT", "normalised before?")
    assert study.check(cases, "--strict", modality={"0": modality}).status == 3


@pytest.mark.parametrize(
    ("dtype", "sentence"),
    [
        ([("R", "u1"), ("G", "u1"), ("B", "u1")], "a.nii.gz is RGB (several components per voxel)"),
        (np.complex64, "a.nii.gz is of voxel type complex64"),
    ],
)
def test_35_voxels_that_are_no_plain_numbers(study: Any, dtype: Any, sentence: str) -> None:
    result = study.check([study.case("a", image=study.save("a.nii.gz", np.zeros((6, 6, 6), dtype))), study.case("b")])
    assert result.status == 3
    result.has("a", f"{sentence}; plain numbers are expected", "one number per voxel")
