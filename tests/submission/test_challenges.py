"""A synthetic submission per challenge: built, opened and held against its rules; refused where one is broken."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.cli import main
from medseg.data import Case
from medseg.errors import DataError
from medseg.submission import challenge_module

AFFINE = np.diag([-1.5, -1.0, 3.0, 1.0])


@dataclass
class Challenge:
    """Cases of a challenge, the first name in its archive, the values that it takes and one that it refuses."""

    name: str
    cases: Sequence[str]
    first: str
    values: Sequence[int]
    foreign: int
    refusal: str
    image: str = "{case}.nii.gz"
    labels: tuple[int, ...] = (0, 1)


CHALLENGES = {
    "brats 2023": Challenge(
        "brats", [f"BraTS-GLI-{n:05}-000" for n in (1, 2, 13)], "BraTS-GLI-00001-000.nii.gz", (0, 1, 2, 3), 4, "0 to 3"
    ),
    "brats 2021": Challenge(
        "brats", [f"BraTS2021_{n:05}" for n in (1, 2, 13)], "BraTS2021_00001.nii.gz", (0, 1, 2, 4), 3, "0, 1, 2, 4"
    ),
    "kits": Challenge(
        "kits",
        [f"case_{n:05}" for n in range(210, 300)],
        "prediction_00210.nii.gz",
        (0, 1, 2),
        3,
        "0 to 2",
        image="{case}/imaging.nii.gz",
    ),
    "flare": Challenge(
        "flare",
        [f"validation_{n:03}" for n in range(1, 51)],
        "validation_001.nii.gz",
        (0, 1, 2, 3, 4),
        5,
        "0 to 4",
        image="{case}_0000.nii.gz",
    ),
    "isic": Challenge(
        "isic",
        [f"ISIC_{n:07}" for n in range(379)],
        "ISIC_0000000_Segmentation.png",
        (0, 255),
        1,
        "0, 255",
        image="{case}.jpg",
    ),
    "msd": Challenge(
        "msd", ["la_001", "la_002", "la_003"], "la_001.nii.gz", (0, 1, 5), 2, "0, 1, 5", labels=(0, 1, 5)
    ),  # values of its dataset.json
}


def _save(path: Path, values: Sequence[int], shape: tuple[int, ...] = (4, 3, 2)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".png", ".jpg"):
        Image.fromarray(np.resize(np.uint8(values), shape[:2])).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(np.resize(np.uint8(values), shape), AFFINE), path)


def _build(challenge: Challenge, folder: Path, **entry: Any) -> list[str]:
    """Images, predictions and a datalist; returns the command."""
    suffix = Path(challenge.first).suffix.replace(".gz", ".nii.gz")
    tests = []
    for case in challenge.cases:
        image = challenge.image.format(case=case)
        _save(folder / "images" / image, [7, 9, 8])
        _save(folder / "predictions" / f"{case}{suffix}", challenge.values)
        tests.append({"image": image, **({"case_id": case} if "/" in image else {}), **entry})
    table = {
        "labels": {str(value): f"label {value}" if value else "background" for value in challenge.labels},
        "training": [{"image": "x.nii.gz", "label": "y.nii.gz"}],
        "test": tests,
    }
    (folder / "images" / "dataset.json").write_text(json.dumps(table))
    arguments = ["--json_list", folder / "images" / "dataset.json", "--predictions", folder / "predictions"]
    return ["submit", challenge.name, *map(str, [*arguments, "--output", folder / "made.zip"])]


@pytest.mark.parametrize("key", CHALLENGES)
def test_round_trip_and_refusals(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    challenge = CHALLENGES[key]
    command = _build(challenge, tmp_path)
    assert main(command) == 0
    with zipfile.ZipFile(tmp_path / "made.zip") as archive:
        assert len(archive.namelist()) == len(challenge.cases)
        assert archive.namelist()[0] == challenge.first
        archive.extract(challenge.first, tmp_path)
    if challenge.first.endswith(".png"):
        opened = Image.open(tmp_path / challenge.first)
        assert opened.mode == "L"
        voxels = np.asarray(opened)
    else:
        opened = nibabel.load(tmp_path / challenge.first)
        np.testing.assert_allclose(opened.affine, AFFINE)
        voxels = np.asanyarray(opened.dataobj)
    assert voxels.dtype == np.uint8
    assert set(np.unique(voxels)) == set(challenge.values)
    report = (tmp_path / "made.txt").read_text()
    assert f"{len(challenge.cases)} predictions" in report and "could not be verified:" in report
    assert "all predictions keep these rules" in report

    predictions = sorted((tmp_path / "predictions").iterdir())
    _save(predictions[0], [0, challenge.foreign])
    _save(predictions[1], challenge.values, (5, 3, 2))
    predictions[2].unlink()
    capsys.readouterr()
    assert main([*command, "--overwrite"]) == 3
    said = capsys.readouterr()
    assert f"label values {challenge.foreign}; {challenge.refusal} are expected" in said.out
    assert "one grid is expected" in said.out and f"{challenge.cases[2]}: no prediction in" in said.out
    assert "3 rules are broken" in said.err
    assert len(zipfile.ZipFile(tmp_path / "made.zip").namelist()) == len(challenge.cases)  # the one before is left


@pytest.mark.parametrize("name", ["kits", "flare", "isic"])
def test_other_cases_are_refused(name: str) -> None:
    challenge = CHALLENGES[name]
    cases = [Case(case, (f"{case}.nii.gz",)) for case in challenge.cases]
    assert len(challenge_module(name).submitted(cases)) == len(cases)
    with pytest.raises(DataError, match=r"\(case_00299\)|takes exactly"):
        challenge_module(name).submitted(cases[:-1])
    with pytest.raises(DataError, match="other_1 is no"):
        challenge_module(name).submitted([*cases[:-1], Case("other_1", ("x.nii.gz",))])


def test_brats_takes_cases_whose_references_are_hidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_build(CHALLENGES["brats 2023"], tmp_path, label="seg.nii.gz")) == 3
    assert "BraTS-GLI-00001-000 has a label, so it is of the training data" in capsys.readouterr().err
    mixed = [Case(case, ("x",)) for case in ("BraTS-GLI-00001-000", "BraTS2021_00001")]
    with pytest.raises(DataError, match="mixes cases of BraTS 2023 and of older releases"):
        challenge_module("brats").submitted(mixed)


def test_msd_is_held_against_the_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*_build(CHALLENGES["msd"], tmp_path), "--folder", "Task02_Heart"]
    task = tmp_path / "task" / "dataset.json"
    task.parent.mkdir()
    table = json.loads((tmp_path / "images" / "dataset.json").read_text())
    table["test"] = [f"./imagesTs/la_00{n}.nii.gz" for n in (1, 2, 3)]
    task.write_text(json.dumps(table))
    assert main([*command, "--dataset_json", str(task)]) == 0
    assert zipfile.ZipFile(tmp_path / "made.zip").namelist()[0] == "Task02_Heart/la_001.nii.gz"
    table["labels"] = {"0": "background", "1": "left atrium"}
    task.write_text(json.dumps(table))
    assert main([*command, "--overwrite", "--dataset_json", str(task)]) == 3
    assert "label values 5; 0 to 1 are expected" in capsys.readouterr().out
    table["test"][2] = "./imagesTs/la_004.nii.gz"
    task.write_text(json.dumps(table))
    assert main([*command, "--overwrite", "--dataset_json", str(task)]) == 3
    assert "lists 3 test images, the section has 3: it lacks la_004 and has la_003 besides" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--folder", "../x"]) == 2
    assert "folder '../x' is not a valid folder name" in capsys.readouterr().err
