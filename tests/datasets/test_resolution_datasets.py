"""BraTS, KiTS and MVSeg on their archives' layouts: the published split, patients together, older releases, copies."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import nibabel
import numpy as np
import pytest
from full_set import FULL_SET
from layouts import CONTRASTS_2023 as CONTRASTS
from layouts import touch

from medseg.cli import main
from medseg.data import read_datalist
from medseg.datasets import brats, kits, mvseg
from medseg.errors import ConfigError, DataError
from medseg.transforms import scaled_size

ROOT = Path(__file__).parents[2]
LIST = ROOT / "data_json" / "brats23.json"
FIXTURE = FULL_SET / "ibm" / "brats23_split_seed100.json"
OLDER = ("t1ce", "t1", "flair", "t2", "seg")
SECTIONS = ("training", "validation", "test")


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """The folder of 1251 cases, of empty files."""
    table = json.loads(LIST.read_text())
    cases = [case["case_id"] for section in SECTIONS for case in table[section]]
    return touch(
        tmp_path_factory.mktemp("raw"), *(f"{case}/{case}-{name}.nii.gz" for case in cases for name in CONTRASTS)
    )


def ids(table: dict, section: str) -> list[str]:
    return [case["case_id"] for case in table[section]]


def test_the_published_split_is_the_list_byte_for_byte(raw, tmp_path):
    path = brats.prepare(raw, tmp_path, split="published")
    assert path.read_bytes() == LIST.read_bytes()
    table = json.loads(path.read_text())
    assert [len(table[section]) for section in SECTIONS] == [751, 125, 375]


@pytest.mark.usefixtures("full_set")
def test_the_cases_of_the_list_are_the_published_ones():
    table, published = json.loads(LIST.read_text()), json.loads(FIXTURE.read_text())
    assert [ids(table, section) for section in SECTIONS] == list(published.values())


def test_patients_stay_together_unless_the_published_split_is_asked_for(raw, tmp_path):
    table = json.loads(brats.prepare(raw, tmp_path, num_folds=5).read_text())
    subjects = [{case["subject"] for case in table[section]} for section in SECTIONS]
    assert not (subjects[0] & subjects[1] or subjects[0] & subjects[2] or subjects[1] & subjects[2])
    assert "known_overlaps" not in table
    counts = [len(table[section]) for section in SECTIONS]
    assert sum(counts) == 1251
    assert max(abs(n - m) for n, m in zip(counts, (751, 125, 375), strict=True)) <= 8  # scans of one patient
    assert sorted(case for section in SECTIONS for case in ids(table, section)) == sorted(p.name for p in raw.iterdir())
    assert read_datalist(tmp_path / "brats23.json", raw).folds() == [0, 1, 2, 3, 4]
    published = json.loads(LIST.read_text())
    sides = [{case["subject"] for case in published[section]} for section in SECTIONS]
    train, valid, test = sides
    assert (len(train & test), len(train & valid), len(valid & test)) == (48, 17, 7)
    assert set(published["known_overlaps"]) == (train & test) | (train & valid) | (valid & test)


def test_the_ready_list_evaluates_regions_and_warns_once(tmp_path, caplog):
    datalist = read_datalist(LIST, tmp_path)
    assert caplog.text.count("known_overlaps") == 1 and "So are 16 others" in caplog.text
    space = datalist.label_space
    assert (space.mode, space.num_channels) == ("softmax", 4)
    assert space.targets == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


@pytest.mark.parametrize(
    ("case", "suffix", "name"),
    [
        ("BraTS2021_00002", ".nii.gz", "brats21"),
        ("BraTS20_Training_001", ".nii", "brats20"),
        ("BraTS19_CBICA_AAB_1", ".nii.gz", "brats19"),
        ("Brats18_TCIA01_131_1", ".nii.gz", "brats18"),
    ],
)
def test_older_releases_have_other_names_and_label_4(case, suffix, name, tmp_path):
    raw = touch(tmp_path / "raw", *(f"{case}/{case}_{contrast}{suffix}" for contrast in OLDER))
    path = brats.prepare(raw, tmp_path / "out", fractions=("1", "0", "0"), mode="sigmoid")
    assert path.name == f"{name}.json"
    (entry,) = json.loads(path.read_text())["training"]
    assert [Path(image).name.split("_")[-1].split(".")[0] for image in entry["image"]] == ["t1ce", "t1", "flair", "t2"]
    assert entry["case_id"] == case
    space = read_datalist(path, raw).label_space
    assert space.channels == ("WT", "TC", "ET")
    np.testing.assert_array_equal(space.encode(np.array([0, 1, 2, 4])), [0, 1, 2, 3])
    np.testing.assert_array_equal(space.decode(np.array([0, 1, 2, 3])), [0, 1, 2, 4])


def test_grades_of_2019_are_split_one_by_one(tmp_path):
    """335 cases, 90 and 10 per cent per grade, as the earlier publications did: 301 and 34."""
    names = {"HGG": [f"BraTS19_X_{n:03}_1" for n in range(259)], "LGG": [f"BraTS19_Y_{n:03}_1" for n in range(76)]}
    files = [f"{g}/{c}/{c}_{x}.nii.gz" for g, cases in names.items() for c in cases for x in OLDER]
    raw = touch(tmp_path / "raw", *files)
    path = brats.prepare(raw, tmp_path / "out", split="published", fractions=("0.9", "0.1", "0"))
    datalist = read_datalist(path, raw)
    assert [len(datalist.sections[section]) for section in SECTIONS] == [301, 34, 0]
    assert sum("HGG" in case.images[0] for case in datalist.sections["training"]) == 233


def test_copies_of_another_size_keep_the_field_of_view(tmp_path, capsys):
    case, raw = "BraTS-GLI-00003-000", tmp_path / "raw"
    (raw / case).mkdir(parents=True)
    affine = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float)
    values = np.random.default_rng(0).integers(0, 4, (12, 10, 7)).astype(np.int16)
    for name in CONTRASTS:
        nibabel.save(nibabel.Nifti1Image(values, affine), raw / case / f"{case}-{name}.nii.gz")
    options = ["--size", "6x5x4", "--fractions", "1,0,0"]
    assert main(["prepare", "brats", "--raw", str(raw), "--out", str(tmp_path / "out"), *options]) == 0
    assert "1 training" in capsys.readouterr().out
    (entry,) = json.loads((tmp_path / "out" / "brats23.json").read_text())["training"]
    image, label = (nibabel.load(tmp_path / "out" / file) for file in (entry["image"][2], entry["label"]))
    assert image.shape == label.shape == scaled_size(values.shape, 0.5)
    assert set(np.unique(label.get_fdata())) <= {0, 1, 2, 3} and label.get_data_dtype() == np.int16
    np.testing.assert_array_equal(image.get_fdata(), label.get_fdata())  # both by the nearest voxel
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(image.affine), [2, 2, 1.75])
    outer = [
        source.affine @ [*(np.array(source.shape) - 0.5), 1]
        for source in (image, nibabel.load(raw / case / f"{case}-seg.nii.gz"))
    ]
    np.testing.assert_allclose(*outer)


def test_what_is_wrong_with_an_archive_is_said(tmp_path):
    case = "BraTS-GLI-00003-000"
    raw = touch(tmp_path / "raw", *(f"{case}/{case}-{name}.nii.gz" for name in CONTRASTS[:4]))
    with pytest.raises(DataError, match=f"1 of 5 files are missing: {case}-seg.nii.gz"):
        brats.prepare(raw, tmp_path / "out")
    with pytest.raises(DataError, match=f"Did you mean {raw}"):
        brats.prepare(raw.parent, tmp_path / "out")
    touch(raw, f"{case}/{case}-seg.nii.gz")
    with pytest.raises(ConfigError, match="split 'scan' is unknown"):
        brats.prepare(raw, tmp_path / "out", split="scan")
    with pytest.raises(ConfigError, match="whose sum is 1"):
        brats.prepare(raw, tmp_path / "out", fractions=(0.5, 0.1, 0.3))
    with pytest.raises(ConfigError, match="size '120x78'"):
        brats.prepare(raw, tmp_path / "out", size="120x78", fractions=(1, 0, 0))
    touch(raw, *(f"BraTS2021_00001/BraTS2021_00001_{name}.nii.gz" for name in OLDER))
    with pytest.raises(DataError, match="different releases"):
        brats.prepare(raw, tmp_path / "out")
    assert brats.patient_of("BraTS-GLI-00008-001") == "BraTS-GLI-00008"


def test_kits_is_split_by_the_same_rule(tmp_path, monkeypatch):
    raw = layouts.kits(tmp_path / "raw", monkeypatch)
    cases = sorted(path.name for path in raw.iterdir())
    table = json.loads(kits.prepare(raw, tmp_path / "out").read_text())
    assert [len(table[section]) for section in SECTIONS] == [30, 5, 15]
    permuted = np.random.default_rng(100).permutation(cases).tolist()
    assert ids(table, "test") == sorted(permuted[35:])
    assert list(read_datalist(tmp_path / "out" / "kits23.json", raw).label_space.targets) == list(kits.REGIONS)
    (raw / "case_00007" / "segmentation.nii.gz").unlink()
    with pytest.raises(DataError, match="1 of 100 files are missing: case_00007/segmentation"):
        kits.prepare(raw, tmp_path / "out")


def test_mvseg_has_the_challenges_sections(tmp_path, monkeypatch):
    raw = layouts.mvseg(tmp_path / "raw", monkeypatch)
    table = json.loads(mvseg.prepare(raw, tmp_path / "out").read_text())
    assert [ids(table, section) for section in SECTIONS] == [
        ["train_001", "train_002"],
        ["val_001", "val_002"],
        ["test_001"],
    ]
    assert table["validation"][1]["label"] == "val/val_002-label.nii.gz" and "label" not in table["test"][0]
    (raw / "val" / "val_001-label.nii.gz").unlink()
    with pytest.raises(DataError, match="val_001-label.nii.gz is missing"):
        mvseg.prepare(raw, tmp_path / "out")


@pytest.mark.parametrize("module", [brats, kits, mvseg])
def test_the_four_sizes_are_fractions_of_the_first(module):
    full, *smaller = [tuple(map(int, size.split("x"))) for size in module.SIZES]
    assert [scaled_size(full, scale) for scale in (1 / 2, 1 / 3, 1 / 4)] == smaller
