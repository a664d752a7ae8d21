"""AMOS on the archive's layout, with empty files: both tasks, modalities, and what is said of missing files."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import pytest

from medseg.data import read_datalist
from medseg.datasets.amos import modality_of, prepare
from medseg.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]
PUBLISHED = json.loads((ROOT / "data_json" / "amos_task01.json").read_text())
MR = {"training": range(501, 541), "validation": range(541, 561), "test": range(561, 601)}


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return layouts.amos(tmp_path / "amos22", monkeypatch)


def test_task_1_is_the_published_list_byte_for_byte(raw, tmp_path):
    path = prepare(raw, tmp_path / "out")
    assert path.name == "amos_task01.json"
    assert path.read_bytes() == (ROOT / "data_json" / "amos_task01.json").read_bytes()


def test_task_2_has_both_modalities(raw, tmp_path):
    datalist = read_datalist(prepare(raw, tmp_path / "out", task=2), raw)
    assert {name: len(cases) for name, cases in datalist.sections.items()} == {
        "training": 240,
        "validation": 120,
        "test": 240,
    }
    kinds = [case.modality for cases in datalist.sections.values() for case in cases]
    assert (kinds.count("CT"), kinds.count("MR")) == (500, 100)
    assert datalist.label_space.labels == read_datalist(prepare(raw, tmp_path / "out"), raw).label_space.labels
    assert (modality_of("amos_0500"), modality_of("amos_0501.nii.gz")) == ("CT", "MR")
    with pytest.raises(DataError, match="is not a case of AMOS"):
        modality_of("img0001")
    with pytest.raises(ConfigError, match="no task 3"):
        prepare(raw, tmp_path / "out", task=3)


def test_missing_files_are_named(raw, tmp_path):
    (raw / "labelsTr" / "amos_0001.nii.gz").unlink()
    (raw / "imagesVa" / "amos_0008.nii.gz").unlink()
    with pytest.raises(DataError, match="imagesVa has 99 of 100 .*2 of 799 files .* imagesVa/amos_0008.nii.gz, labels"):
        prepare(raw, tmp_path / "out")
    (raw / "dataset.json").unlink()  # then only the numbers tell
    with pytest.raises(DataError, match="imagesVa has 99 of 100 .*1 of 797 files are missing: labelsTr/amos_0001"):
        prepare(raw, tmp_path / "out")
    with pytest.raises(DataError, match=r"Did you mean .*amos22\?"):
        prepare(raw.parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_list_is_named(raw, tmp_path):
    (raw / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json, line 1, column 2: not valid JSON"):
        prepare(raw, tmp_path / "out")


def test_the_split_of_repuxnet_byte_for_byte(raw, tmp_path):
    path = prepare(raw, tmp_path / "out", split="repux")
    assert path.read_bytes() == (ROOT / "data_json" / "amos22_repux.json").read_bytes()
    datalist = read_datalist(path, raw)
    assert {case.id for case in datalist.sections["test"]} == datalist.known_overlaps
    for options in ({"split": "repux", "task": 2}, {"split": "published"}):
        with pytest.raises(ConfigError, match="has no split"):
            prepare(raw, tmp_path / "out", **options)
