"""BUSI on the archive's layout: masks joined, folds as published, the ready list, and what is said of a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import numpy as np
import pytest
from full_set import FULL_SET
from PIL import Image

from medseg.data import inspect_cases, read_datalist
from medseg.datasets.busi import prepare
from medseg.errors import DataError

ROOT = Path(__file__).parents[2]
GOLDEN = FULL_SET / "qtseg" / "busi_folds.json"
COUNTS = {"benign": 437, "malignant": 210, "normal": 3}


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return layouts.busi(tmp_path / "Dataset_BUSI_with_GT", monkeypatch)


def test_masks_are_joined_and_nothing_raw_changes(raw: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in raw.rglob("*.png")}
    path = prepare(raw, tmp_path / "out")
    assert {p: p.read_bytes() for p in raw.rglob("*.png")} == before
    datalist = read_datalist(path)
    cases = datalist.sections["training"]
    assert len(cases) == 16
    assert not any(case.id.startswith("normal") for case in cases)
    facts = inspect_cases(cases, datalist.label_space, datalist.channels)
    assert not [problem for case in facts for problem in case.problems]
    for name, rows in (("benign (1)", [0]), ("benign (2)", [0, 2]), ("benign (3)", [0, 2, 4])):
        mask = np.asarray(Image.open(tmp_path / "out" / "labels" / f"{name}.png"))
        assert set(np.unique(mask)) == {0, 255}
        assert np.flatnonzero(mask.any(axis=1)).tolist() == rows
    first = path.read_bytes()
    assert prepare(raw, tmp_path / "out").read_bytes() == first


def test_the_last_of_a_class_are_never_validated(raw: Path, tmp_path: Path) -> None:
    cases = read_datalist(prepare(raw, tmp_path / "out")).sections["training"]
    # sorted as text: (1), (10), (11), (2), … in slices of 11 // 5 = 2
    folds = {case.id: case.fold for case in cases}
    assert [folds[f"benign ({i})"] for i in (1, 10, 11, 2, 8, 9)] == [0, 0, 1, 1, 4, None]


def test_the_ready_list_is_the_published_one(tmp_path: Path) -> None:
    raw = layouts.busi_of(tmp_path / "raw", COUNTS, shape=(5, 5))
    path = prepare(raw, tmp_path / "out")
    assert path.read_bytes() == (ROOT / "data_json" / "busi.json").read_bytes()


@pytest.mark.usefixtures("full_set")
def test_the_folds_of_the_ready_list_are_the_published_ones() -> None:
    golden = json.loads(GOLDEN.read_text())
    datalist = read_datalist(ROOT / "data_json" / "busi.json")
    for fold in range(5):
        training, validation = datalist.split(fold)
        expected = {name for part in golden.values() for name in part["folds"][f"fold_{fold}"]}
        assert {case.id for case in validation} == expected
        assert (len(training), len(validation)) == (518, 129)


def test_a_broken_archive(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"benign holds no image. Did you mean .*Dataset_BUSI_with_GT\?"):
        prepare(tmp_path, tmp_path / "out")
    (raw / "malignant" / "malignant (4)_mask.png").unlink()
    (raw / "malignant" / "malignant (5).png").unlink()
    lacking = r"malignant \(4\)\.png, malignant \(5\)_mask\.png"
    with pytest.raises(DataError, match=rf"2 files in .* lack their mask or image: {lacking}\. Expected"):
        prepare(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()
