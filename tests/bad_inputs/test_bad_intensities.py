"""Intensities (numbers 31 to 36 of the matrix)."""

from __future__ import annotations

import gzip
import struct
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


def _ct(study: Any) -> np.ndarray:
    """Air with a body of soft tissue and bone in it, in Hounsfield units."""
    values = np.full((12, 10, 20), -1000.0)
    values[2:10, 2:8, 2:18] = 40
    values[4:6, 4:6] = 900
    return values + study.random.normal(size=values.shape) * 10


_STORED = {
    "unit": (lambda hu: ((hu + 1000) / 2000).astype(np.float32), "Was it normalised before?"),
    "bytes": (lambda hu: (hu / 8 + 128).clip(0, 255).astype(np.uint8), "an offset, often 1024, or scaled?"),
    "offset": (lambda hu: (hu + 1024).clip(0).astype(np.uint16), "an offset, often 1024, or scaled?"),
    "offset and noise": (lambda hu: (hu + 1000).astype(np.int16), "an offset, often 1024?"),
    "wrapped": (lambda hu: hu.astype(np.int16).astype(np.uint16), "negative numbers stored as unsigned ones?"),
}


@pytest.mark.parametrize("name", _STORED)
def test_33_34_ct_in_other_units(study: Any, name: str) -> None:
    store, remedy = _STORED[name]
    cases = [
        study.case("a", image=study.save("a.nii.gz", store(_ct(study))), label=study.label("l.nii.gz", (12, 10, 20)))
    ]
    result = study.check([*cases, study.case("b")])
    assert result.status == 0
    result.warns("a", "Hounsfield units (about -1024…3071) are expected of CT", remedy)
    assert "Hounsfield" not in study.check(cases, modality={"0": "MR"}).log


def test_33_one_odd_case_of_a_set(study: Any) -> None:
    cases = []
    for index in range(6):
        values = _ct(study) * (1 + 0.02 * index) - (1024 if index == 3 else 0)
        if index == 4:
            values[:, :, 0] = -3000  # what a scanner writes outside its field of view is nothing odd
        image = study.save(f"c{index}.nii.gz", values.astype(np.int16))
        cases.append(study.case(f"c{index}", image=image, label=study.label(f"l{index}.nii.gz", (12, 10, 20))))
    result = study.check(cases, validation=[])
    assert result.status == 0
    assert len(result.rows(result.log)) == 1
    result.warns("c3", "below those of the other cases; one unit is expected of all", "stored with an offset")


def test_33_one_pet_in_another_unit(study: Any) -> None:
    images = [
        study.save(f"p{i}.nii.gz", study.random.gamma(2, 2, (12, 10, 8)).astype(np.float32) * (1 + i)) for i in range(4)
    ]
    images.append(study.save("p4.nii.gz", study.random.gamma(2, 2, (12, 10, 8)).astype(np.float32) * 2000))
    cases = [study.case(f"p{i}", image=image) for i, image in enumerate(images)]
    result = study.check(cases, modality={"0": "PET"}, validation=[])
    assert len(result.rows(result.log)) == 1
    result.warns("p4", "those of most others", "in the unit of the others")


@pytest.mark.parametrize(("slope", "inter", "said"), [(0, 0, "(scl_slope) is 0"), (1, np.nan, "(scl_inter) is nan")])
def test_34_scale_factor_that_is_none(study: Any, slope: float, inter: float, said: str) -> None:
    path = study.folder / study.image("a.nii.gz")
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<2f", data, 112, slope, inter)
    path.write_bytes(gzip.compress(bytes(data)))
    result = study.check([study.case("a", image="a.nii.gz"), study.case("b")])
    assert result.status == 0
    result.warns("a", f"{said}; ignored", "The stored values are taken as they are")


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


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_36_wide_numbers_are_cast_with_a_word(study: Any, dtype: Any) -> None:
    values = study.random.integers(0, 900, (12, 10, 8)).astype(dtype)
    result = study.check([study.case("a", image=study.save("a.nii.gz", values))], modality={"0": "MR"}, validation=[])
    assert result.status == 0
    assert f"1 case: voxels of type {np.dtype(dtype)} are taken as float32" in result.log


def test_36_numbers_beyond_float32(study: Any) -> None:
    values = study.random.normal(size=(12, 10, 8))
    values[0, 0, 0] = 1e302
    result = study.check([study.case("a", image=study.save("a.nii.gz", values)), study.case("b")])
    assert result.status == 3
    result.has("a", "voxel values up to 1e+302; numbers within ±3e+38 (float32) are expected", "Export the image again")
