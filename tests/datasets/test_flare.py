"""FLARE 2021 on the archive's layout, with empty files: the stored list, and what is said of broken archives."""

from __future__ import annotations

from pathlib import Path

import layouts
import pytest

from medseg.data import read_datalist
from medseg.datasets.flare import TEST_IDS, prepare
from medseg.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return layouts.flare(tmp_path / "FLARE21", monkeypatch)


def test_the_stored_list_byte_for_byte(raw, tmp_path):
    path = prepare(raw, tmp_path / "out")
    assert path.read_bytes() == (ROOT / "data_json" / "flare21.json").read_bytes()
    datalist = read_datalist(path, raw)
    assert [case.id for case in datalist.sections["test"]] == [f"train_{n:03}" for n in TEST_IDS]
    assert all(Path(file).is_file() for case in datalist.sections["test"] for file in case.files)


def test_images_without_a_channel_number(raw, tmp_path):
    for path in raw.glob("TrainingImg/train_*"):
        path.rename(path.with_name(path.name.replace("_0000", "")))
    datalist = read_datalist(prepare(raw, tmp_path / "out", num_folds=3), raw)
    assert datalist.folds() == [0, 1, 2]
    assert Path(datalist.sections["training"][0].images[0]).name == "train_000.nii.gz"


def test_broken_archives_are_named(raw, tmp_path):
    (raw / "TrainingMask" / "train_036.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 of 361 labels .*: TrainingMask/train_036.nii.gz. Unpack TrainingMask"):
        prepare(raw, tmp_path / "out")
    (raw / "TrainingImg" / "train_007_0000.nii.gz").unlink()
    with pytest.raises(DataError, match="360 of 361 cases of FLARE 2021, without train_007"):
        prepare(raw, tmp_path / "out")
    with pytest.raises(DataError, match=r"0 of 361 .*Did you mean .*FLARE21\?"):
        prepare(raw.parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()
