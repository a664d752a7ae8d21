"""BTCV on the archive's layout, with tiny files: the published list, links, and what is said of missing files."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import pytest

from medseg.data import read_datalist
from medseg.datasets.btcv import prepare
from medseg.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that hold their names."""
    root = layouts.btcv(tmp_path / "Abdomen/RawData", monkeypatch)
    for path in root.rglob("*.nii.gz"):
        path.write_bytes(path.name.encode())
    return root


def test_the_published_list_byte_for_byte(raw, tmp_path):
    path = prepare(raw, tmp_path / "out")
    assert path.read_bytes() == (ROOT / "data_json" / "btcv.json").read_bytes()
    datalist = read_datalist(path)
    for number, case in ((1, datalist.sections["training"][0]), (35, datalist.sections["validation"][0])):
        assert Path(case.images[0]).read_bytes() == b"img%04d.nii.gz" % number
        assert Path(case.label).read_bytes() == b"label%04d.nii.gz" % number
    assert Path(datalist.sections["test"][-1].images[0]).read_bytes() == b"img0080.nii.gz"


def test_links_where_there_are_none_are_copies(raw, tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError("no privilege")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    out = prepare(raw, tmp_path / "out").parent
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert (out / "labelsTr" / "label0040.nii.gz").read_bytes() == b"label0040.nii.gz"


def test_folds_of_the_training_section(raw, tmp_path):
    table = json.loads(prepare(raw, tmp_path / "out", num_folds=4).read_text())
    folds = [case["fold"] for case in table["training"]]
    assert sorted(folds) == sorted([0, 1, 2, 3] * 6)
    assert not any("fold" in case for case in table["validation"])
    assert not any("case_id" in case for case in table["training"])


def test_missing_files_are_named(raw, tmp_path):
    (raw / "Training/label/label0007.nii.gz").unlink()
    (raw / "Testing/img/img0070.nii.gz").unlink()
    with pytest.raises(
        DataError, match="2 of 80 files .*: Training/label/label0007.nii.gz, Testing/img/img0070.nii.gz"
    ):
        prepare(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"80 of 80 files .*Did you mean .*RawData\?"):
        prepare(raw.parent, tmp_path / "out")
