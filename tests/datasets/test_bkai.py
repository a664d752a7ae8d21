"""NeoPolyp on the archive's layout: classes from colours, folds, both lists, and what is said of a broken archive."""

from __future__ import annotations

from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image

from medseg.data import inspect_cases, read_datalist
from medseg.datasets.bkai import prepare
from medseg.errors import ConfigError, DataError


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return layouts.bkai(tmp_path / "bkai-igh-neopolyp", monkeypatch)


@pytest.mark.parametrize("classes", [2, 3])
def test_colours_become_classes(raw: Path, tmp_path: Path, classes: int) -> None:
    datalist = read_datalist(prepare(raw, tmp_path / "out", classes=classes))
    assert datalist.label_space.num_channels == classes
    cases = datalist.sections["training"]
    facts = inspect_cases(cases, datalist.label_space, datalist.channels)
    assert not [problem for case in facts for problem in case.problems]
    assert [case.fold for case in cases] == [0, 1, 2, 3, 4, None]
    assert [case.id for case in datalist.sections["test"]] == ["aa", "bb"]
    labels = np.asarray(Image.open(tmp_path / "out" / "labels" / "701.png"))
    expected = np.zeros((48, 64), np.uint8)
    for value, box in layouts.BKAI_BOXES.items():
        expected[box] = value
    assert (labels == expected).mean() > 0.9  # JPEG blurs the edges
    for value, (rows, columns) in layouts.BKAI_BOXES.items():
        inside = labels[rows.start + 4 : rows.stop - 4, columns.start + 4 : columns.stop - 4]
        assert (inside == value).all()
    first = prepare(raw, tmp_path / "out", classes=classes).read_bytes()
    assert prepare(raw, tmp_path / "out", classes=classes).read_bytes() == first


def test_both_lists_share_their_masks(raw: Path, tmp_path: Path) -> None:
    paths = [prepare(raw, tmp_path / "out", classes=classes) for classes in (2, 3)]
    assert [path.name for path in paths] == ["bkai_binary.json", "bkai_three_classes.json"]
    two, three = (read_datalist(path).sections["training"] for path in paths)
    assert two == three


def test_a_broken_archive(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no list of 4 classes; use 2"):
        prepare(raw, tmp_path / "out", classes=4)
    (raw / "train_gt" / "train_gt" / "701.jpeg").unlink()
    with pytest.raises(DataError, match="1 of 6 cases lack an image or a mask .701.; expected for example"):
        prepare(raw, tmp_path / "out")
    for path in (raw / "train" / "train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"train holds no \*\.jpeg; unpack the archive again"):
        prepare(raw, tmp_path / "out")
