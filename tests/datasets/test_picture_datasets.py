"""ISIC 2016, FIVES and DSB 2018 on their archives' layouts, sound and broken."""

from __future__ import annotations

from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import MASK, picture
from PIL import Image

from medseg.data import inspect_cases, read_datalist
from medseg.data.picture_masks import sliced_folds, write_union
from medseg.datasets import dsb2018, fives, isic
from medseg.errors import DataError


def sound(path: Path, root: Path) -> dict[str, list[dict]]:
    """The sections of a list whose files can all be used."""
    datalist = read_datalist(path, root)
    cases = [case for section in datalist.sections.values() for case in section]
    facts = inspect_cases(cases, datalist.label_space, datalist.channels)
    assert not [problem for case in facts for problem in case.problems]
    return datalist.sections


def test_isic_keeps_the_official_test_set_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.isic(tmp_path / "raw", monkeypatch)
    path = isic.prepare(raw, tmp_path / "out")
    sections = sound(path, raw)
    assert [case.id for case in sections["test"]] == ["ISIC_0009003", "ISIC_0009011"]
    assert all(Path(case.label).name == f"{case.id}_Segmentation.png" for case in sections["test"])
    assert {case.fold for case in sections["training"]} == set(range(5))
    first = path.read_bytes()
    assert isic.prepare(raw, tmp_path / "out", seed=1).read_bytes() != first


def test_isic_without_a_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.isic(tmp_path / "raw", monkeypatch)
    lacking = raw / "ISBI2016_ISIC_Part1_Training_GroundTruth" / "ISIC_0000004_Segmentation.png"
    lacking.unlink()
    with pytest.raises(DataError, match="1 of 7 cases lack an image or a mask .ISIC_0000004.; expected for") as error:
        isic.prepare(raw, tmp_path / "out")
    assert str(lacking) in str(error.value)


def test_fives_has_equal_names_in_both_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.fives(tmp_path / "raw", monkeypatch)
    sections = sound(fives.prepare(raw, tmp_path / "out"), raw)
    assert sections["training"][0].id == "train_1_A"
    assert [case.id for case in sections["test"]] == ["test_1_A", "test_2_G"]


def test_fives_of_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.fives(tmp_path / "raw", monkeypatch)
    with pytest.raises(DataError, match=r"Original holds no \*\.png; unpack the archive again"):
        fives.prepare(raw / "train", tmp_path / "out")


def test_nuclei_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.dsb2018(tmp_path / "raw", monkeypatch)
    path = dsb2018.prepare(raw, tmp_path / "out")
    sections = sound(path, tmp_path / "out")
    mask = np.asarray(Image.open(tmp_path / "out" / "labels" / "0f.png"))
    assert np.count_nonzero(mask) == 3 * 2 * 9
    assert set(np.unique(mask)) == {0, 255}
    # 11 names in slices of 2, the last one in none
    assert [case.fold for case in sections["training"]] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, None]
    assert [case.id for case in sections["test"]] == ["aa"]


def test_nuclei_without_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.dsb2018(tmp_path / "raw", monkeypatch)
    for mask in (raw / "stage1_train" / "3f" / "masks").glob("*"):
        mask.unlink()
    (raw / "stage1_test" / "aa" / "images" / "aa.png").unlink()
    with pytest.raises(DataError, match="2 images or masks are missing, the first is .*aa.png; unpack it again"):
        dsb2018.prepare(raw, tmp_path / "out")
    with pytest.raises(DataError, match="stage1_train holds no folders of images"):
        dsb2018.prepare(raw / "stage1_train", tmp_path / "out")


def test_masks_of_two_sizes_are_not_joined(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", MASK)
    picture(tmp_path / "b.png", MASK.T)
    with pytest.raises(DataError, match=r"b.png has 12×10 pixels, a.png 10×12"):
        write_union([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "c.png")


def test_folds_are_slices_of_the_sorted_names() -> None:
    assert sliced_folds(["c", "a", "e", "b", "d"], 2) == [1, 0, None, 0, 1]
    assert sliced_folds(["a", "b"], 3) == [None, None]
