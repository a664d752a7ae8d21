"""FeTA 2021 on the archive's layout, with empty files."""

from __future__ import annotations

from pathlib import Path

import layouts
import pytest

from medseg.data import read_datalist
from medseg.datasets.feta import prepare
from medseg.errors import DataError


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return layouts.feta(tmp_path / "feta_2.1", monkeypatch)


def test_80_subjects_in_folds(raw, tmp_path):
    path = prepare(raw, tmp_path / "out")
    datalist = read_datalist(path, raw)
    training = datalist.sections["training"]
    assert len(training) == 80
    assert [len(datalist.split(fold)[1]) for fold in datalist.folds()] == [16] * 5
    assert (training[0].subject, training[-1].own["reconstruction"]) == ("sub-001", "irtk")
    assert all(Path(file).is_file() for case in training for file in case.files)
    assert datalist.label_space.num_channels == 8


def test_broken_archives_are_named(raw, tmp_path):
    (raw / "sub-003" / "anat" / "sub-003_rec-mial_dseg.nii.gz").unlink()
    with pytest.raises(DataError, match="1 labels of FeTA 2021 are missing .*sub-003/anat/sub-003_rec-mial_dseg"):
        prepare(raw, tmp_path / "out")
    (raw / "sub-041" / "anat" / "sub-041_rec-irtk_T2w.nii.gz").unlink()
    with pytest.raises(DataError, match="79 images of 79 subjects, expected one of each of 80"):
        prepare(raw, tmp_path / "out")
    with pytest.raises(DataError, match=r"Did you mean .*feta_2.1\?"):
        prepare(raw.parent, tmp_path / "out")
