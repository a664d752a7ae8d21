"""One image or label for two cases, and subjects on both sides of a split (numbers 8 and 9 of the matrix)."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg.data import read_datalist
from medseg.data.overlaps import check_names
from medseg.data.subjects import guess_subjects

LISTS = sorted((Path(__file__).parents[2] / "data_json").rglob("*.json"))


def label(study: Any, name: str, place: int) -> str:
    """A label unlike those of other places."""
    values = np.zeros((12, 10, 8), np.uint8)
    values[place : place + 3, 2:5, 2:5] = 1
    return study.save(name, values)


def spellings(folder: Path, name: str) -> dict[str, str]:
    """Other names of the same file."""
    (folder / "sub").mkdir()
    (folder / "link.nii.gz").symlink_to(folder / name)
    (folder / "hard.nii.gz").hardlink_to(folder / name)
    (folder / "elsewhere").symlink_to(folder)
    return {
        "dots": f"sub/../{name}",
        "link": "link.nii.gz",
        "hard": "hard.nii.gz",
        "folder": f"elsewhere/{name}",
        "out": f"../{folder.name}/{name}",
    }


@pytest.mark.parametrize("how", ["dots", "link", "hard", "folder", "out"])
def test_8_one_image_under_two_names(study: Any, how: str) -> None:
    image = study.image("a.nii.gz")
    other = spellings(study.folder, image)[how]
    training = [{"image": image, "label": label(study, "a_label.nii.gz", 1)}, study.case("b")]
    for section in ("validation", "test"):
        twice = {"image": other, "label": label(study, "other_label.nii.gz", 4), "case_id": "again"}
        sections = {section: [twice], **({"validation": [study.case("c")]} if section == "test" else {})}
        found = study.check(training, **sections)
        assert found.status == 3
        found.has("again", f"again ({section}) have the same image file", "Remove it from one side.")
        found.has("again", "results would be biased", "")
        allowed = study.check(training, **sections, known_overlaps=["again"])
        assert allowed.status == 0
        allowed.warns("again", "declared in 'known_overlaps'", "")


def copies(folder: Path, name: str) -> dict[str, str]:
    """Copies of a volume: byte by byte, compressed again, in another voxel type, in another format."""
    shutil.copyfile(folder / name, folder / "copy.nii.gz")
    with gzip.open(folder / name) as file:
        (folder / "plain.nii").write_bytes(file.read())
    volume = nibabel.load(folder / name)
    nibabel.save(nibabel.Nifti1Image(volume.get_fdata(dtype=np.float32), volume.affine), folder / "float.nii.gz")
    SimpleITK.WriteImage(SimpleITK.ReadImage(folder / name), folder / "other.nrrd")
    return {"copy": "copy.nii.gz", "plain": "plain.nii", "float": "float.nii.gz", "nrrd": "other.nrrd"}


@pytest.mark.parametrize("how", ["copy", "plain", "float", "nrrd"])
def test_8_copies_on_both_sides_and_in_two_folds(study: Any, how: str) -> None:
    image = study.image("a.nii.gz")
    first = {"image": image, "label": label(study, "a_label.nii.gz", 1)}
    twice = {"image": copies(study.folder, image)[how], "label": label(study, "x_label.nii.gz", 4), "case_id": "again"}
    other = {"image": study.image("c.nii.gz"), "label": label(study, "c_label.nii.gz", 6)}
    words = "have images of the same voxels: results would be biased"
    found = study.check([first, other], validation=[twice])
    assert found.status == 0
    found.warns("again", words, "Remove")
    assert study.run("check", "--json_list", study.folder / "list.json", "--strict").status == 3
    folds = study.check([{**first, "fold": 0}, {**twice, "fold": 1}, {**other, "fold": 1}])
    folds.warns("again", "a (fold 0) and again (fold 1) " + words, "'subject'")
    together = study.check([{**first, "fold": 0, "subject": "s"}, {**twice, "fold": 0, "subject": "s"}])
    assert words not in together.log


def test_8_one_label_for_two_images(study: Any) -> None:
    mask, empty = label(study, "mask.nii.gz", 1), study.save("none.nii.gz", np.zeros((12, 10, 8), np.uint8))
    shutil.copyfile(study.folder / mask, study.folder / "copy.nii.gz")
    first, second = study.case("a", label=mask), study.case("b", label="copy.nii.gz")
    shutil.copyfile(study.folder / empty, study.folder / "no.nii.gz")
    healthy = [study.case("c", label=empty), study.case("d", label="no.nii.gz")]
    found = study.check([first, second, *healthy])
    assert found.status == 0
    found.warns("b", "a (training) and b (training) have labels of the same voxels for different images", "'subject'")
    assert "c (training)" not in found.log and "d (training)" not in found.log
    same = study.check([first, {**second, "label": mask}, *healthy])
    same.warns("b", "have the same label file for different images", "Check which label")
    series = study.check([{**first, "subject": "s"}, {**second, "subject": "s"}, *healthy])
    assert "for different images" not in series.log


def test_9_names_tell_a_subject_in_two_folds(study: Any) -> None:
    cases = [
        {**study.case(f"patient{i:02}_slice{j:02}", label=label(study, f"l{i}{j}.nii.gz", 1 + i + 3 * j)), "fold": j}
        for i in range(3)
        for j in range(2)
    ]
    found = study.check(cases)
    assert found.status == 0
    found.warns(
        "some cases",
        "names suggest that subject 'patient00' is on both sides of a split: patient00_slice00 (fold 0) and "
        "patient00_slice01 (fold 1); 3 subjects are so in all",
        "--subject_pattern",
    )
    assert "names suggest" not in study.check([{**case, "subject": str(i)} for i, case in enumerate(cases)]).log


@pytest.mark.parametrize("path", LISTS, ids=lambda p: p.stem)
def test_9_published_lists_are_silent(path: Path, tmp_path: Path) -> None:
    assert not list(check_names(read_datalist(path, tmp_path)))


@pytest.mark.parametrize(
    ("names", "subject"),
    [
        ("patient00_slice00 patient00_slice01 patient01_slice00", "patient00"),
        ("patient00slice1 patient00slice2 patient01slice1", "patient00"),
        ("anna_visit1 anna_visit2 bert_visit1", "anna"),
        ("sub-01_ses-1 sub-01_ses-2 sub-02_ses-1", "sub-01"),
        ("patient001_frame01 patient001_frame12 patient002_frame01", "patient001"),
        ("case_12_3 case_12_4 case_13_1", "case_12"),
        ("A1_0 A1_1 A2_0 A2_1 A3_0 A3_1 A4_0 A5_0 A5_1", "A1"),
        ("012_z1 012_z2 013_z1 013_z2 014_z1 014_z2 015_z1 016_z1 016_z2", "012"),
    ],
)
def test_9_subjects_in_names(names: str, subject: str) -> None:
    guess = guess_subjects(names.split())
    assert guess is not None and guess.sure and guess.subjects[names.split()[0]] == subject
    assert guess.example == tuple(names.split()[:2])


@pytest.mark.parametrize(
    "names",
    [
        "train_000 train_001 train_002",
        "ISIC_2018_0001 ISIC_2018_0002",
        "case_00001 case_00002 case_00003",
        "img0001 img0002",
        "1.2.3.1 1.2.3.2 1.2.4.1",
        "sub-01_T1w sub-02_T1w",
    ],
)
def test_9_numbers_of_cases_are_no_subjects(names: str) -> None:
    assert guess_subjects(names.split()) is None
    parts = guess_subjects(["benign (1)", "benign (2)", "malignant (1)", "malignant (2)"])
    assert parts is None
    sites = guess_subjects([f"site{i}_{j:03}" for i in range(3) for j in range(9)])
    assert sites is not None and not sites.sure
