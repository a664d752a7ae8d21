"""Volumes to 1.5 mm: published golden arrays, true positions, and LiTS and KiTS 2019 from their archives' layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medseg.data import read_datalist
from medseg.data.isotropic import convert_pair
from medseg.datasets import dataset_module, kits19, lits
from medseg.errors import DataError

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT.parent / "shared" / "fixtures" / "hermes"


def write(array: np.ndarray, path: Path, spacing: list[float], direction: tuple[float, ...] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((5.0, -7.0, 11.0))
    if direction:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


@pytest.mark.skipif(not GOLDENS.is_dir(), reason="the goldens of the original program are not here")
@pytest.mark.parametrize(("name", "context"), [("bcv", (20, 20, 20)), ("kits", (30, 40, 20))])
def test_as_published(tmp_path: Path, name: str, context: tuple[int, ...]) -> None:
    golden = np.load(GOLDENS / f"convert_{name}.npz")
    spacing = json.loads((GOLDENS / f"convert_{name}.json").read_text())["in_spacing_xyz"]
    files = [tmp_path / f"{kind}.nii.gz" for kind in ("img", "lab", "out_img", "out_lab")]
    for key, path in zip(("img", "lab"), files, strict=False):
        write(golden[key], path, spacing)
    convert_pair((files[0], files[1]), (files[2], files[3]), context=context)
    for key, path in zip(("out_img", "out_lab"), files[2:], strict=True):
        found = sitk.ReadImage(str(path))
        assert found.GetSpacing() == pytest.approx((1.5, 1.5, 1.5))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), golden[key])


def test_positions_stay_true(tmp_path: Path) -> None:
    array = np.zeros((20, 24, 28), np.int16)
    array[8:14, 4:16, 10:20] = 100
    flip = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    files = [tmp_path / f"{n}.nii.gz" for n in range(4)]
    write(array, files[0], [1.0, 1.0, 2.0], flip)
    write((array > 0).astype(np.uint8), files[1], [1.0, 1.0, 2.0], flip)
    convert_pair((files[0], files[1]), (files[2], files[3]), context=(1, 1, 1))

    def centre(path: Path) -> np.ndarray:
        image = sitk.ReadImage(str(path))
        middle = np.argwhere(sitk.GetArrayFromImage(image) > 0).mean(0)[::-1]
        return np.array(image.TransformContinuousIndexToPhysicalPoint([float(v) for v in middle]))

    assert np.abs(centre(files[1]) - centre(files[3])).max() < 1.0
    write(np.zeros((3, 3, 3), np.uint8), files[1], [1.0, 1.0, 2.0])
    with pytest.raises(DataError, match="expected one grid"):
        convert_pair((files[0], files[1]), (files[2], files[3]))


NAMES = {
    "lits": ("a/volume-{}.nii", "b/segmentation-{}.nii"),
    "kits19": ("case_{:05}/imaging.nii.gz", "case_{:05}/segmentation.nii.gz"),
}


@pytest.mark.parametrize("name", NAMES)
def test_an_archive(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = dataset_module(name)
    monkeypatch.setattr(module, "_CASES", 8)
    monkeypatch.setattr(module, "VALIDATION", (3,))
    monkeypatch.setattr(module, "TEST", (1, 7))
    if name == "lits":
        monkeypatch.setattr(lits, "WRONG_SPACING", {2: (1.0, 1.0, 3.0)})
    raw, label = tmp_path / "raw", np.zeros((4, 6, 6), np.uint8)
    label[1:3, 2:4, 2:5] = 2
    for number in range(8):
        for pattern, array in zip(NAMES[name], (label.astype(np.int16) * 50, label), strict=True):
            write(array, raw / pattern.format(number), [1.5, 1.5, 1.5])
    datalist = read_datalist(module.prepare(raw, tmp_path / "out"))
    counts = {section: len(cases) for section, cases in datalist.sections.items()}
    assert counts == {"training": 5, "validation": 1, "test": 2} and len(datalist.folds()) == 5
    volume = sitk.ReadImage(str(tmp_path / "out" / "2_gt.nii.gz"))
    assert {*np.unique(sitk.GetArrayFromImage(volume))} == {0, 2}
    assert volume.GetSize() == ((4, 4, 8) if name == "lits" else (6, 6, 4))  # of 6 x 6 x 4, or stated anew
    before = (tmp_path / "out" / f"{name}.json").read_bytes()
    (raw / NAMES[name][1].format(5)).unlink()
    with pytest.raises(DataError, match="7 of 8 cases"):
        module.prepare(raw, tmp_path / "out")
    assert (tmp_path / "out" / f"{name}.json").read_bytes() == before


@pytest.mark.parametrize(("module", "name"), [(lits, "lits"), (kits19, "kits")])
def test_sections_are_those_of_the_ready_list(module: object, name: str) -> None:
    table = json.loads((ROOT / "data_json" / "hermes" / f"{name}.json").read_text())
    for key in ("validation", "test"):
        assert {int(case["case_id"]) for case in table[key]} == {*getattr(module, key.upper())}
    assert len(table["training"]) == module.FACTS.splits["training"]  # type: ignore[attr-defined]
