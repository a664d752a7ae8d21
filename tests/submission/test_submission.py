"""Submissions of synthetic test sets: built, opened and checked, and refused with the reason where a rule is broken."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.cli import main
from medseg.data import Case
from medseg.datasets import datasets
from medseg.errors import ConfigError, DataError
from medseg.submission import ChallengeFacts, challenge_module, challenges
from medseg.workflows.submission import submit

ROOT = Path(__file__).parents[2]
SHAPE = (4, 5, 3)
AFFINE = np.array([[0.0, -2.0, 0.3, 5.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.3, 2.0, 11.0], [0.0, 0.0, 0.0, 1.0]])
MR = tuple(range(501, 521))


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def label_map(number: int, classes: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, classes + 1, SHAPE).astype(np.uint8)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Images and datalists of BTCV's test set and of AMOS's validation set with MR."""
    root = tmp_path_factory.mktemp("images")
    btcv = json.loads((ROOT / "data_json" / "btcv.json").read_text())
    amos = json.loads((ROOT / "data_json" / "amos_task01.json").read_text())
    amos["validation"] += [{"image": f"./imagesVa/amos_{n:04}.nii.gz", "label": "none"} for n in MR]
    for name, table, section in (("btcv", btcv, "test"), ("amos", amos, "validation")):
        (root / f"{name}.json").write_text(json.dumps(table))
        for number, entry in enumerate(table[section]):
            save(root / entry["image"], np.full(SHAPE, number, np.int16))
    return root


@pytest.fixture
def btcv(images: Path, tmp_path: Path) -> Path:
    """Label maps of all test cases, beside them the record that ``medseg infer`` leaves."""
    folder = tmp_path / "predictions"
    for number in range(61, 81):
        save(folder / f"img{number:04}.nii.gz", label_map(number, 13))
    (folder / "provenance").mkdir(parents=True)
    return folder


@pytest.fixture
def amos(images: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "predictions"
    for entry in json.loads((images / "amos.json").read_text())["validation"]:
        name = Path(entry["image"]).name
        save(folder / name, label_map(int(name[5:9]), 15))
    return folder


def make(challenge: str, images: Path, predictions: Path, **settings: object) -> Path:
    output = predictions.parent / "made.zip"
    submit(challenge, output, predictions=predictions, json_list=images / f"{challenge}.json", **settings)
    return output


@pytest.mark.parametrize("name", challenges())
def test_a_challenge_keeps_the_contract(name):
    module, facts = challenge_module(name), challenges()[name]
    assert isinstance(facts, ChallengeFacts)
    assert module.__doc__
    assert facts.dataset in datasets()
    assert facts.title and facts.source and facts.section and facts.suffix.startswith(".")
    assert facts.documented or facts.unverified
    first, *options = inspect.signature(module.submitted).parameters.values()
    assert first.name == "cases"
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in options)
    with pytest.raises(DataError):
        module.submitted([])
    with pytest.raises(DataError):
        module.submitted([Case("of another set", ("x.nii.gz",))])


def test_the_list_needs_no_torch():
    code = "import sys; from medseg.cli import main; main(['submit', '--list']); assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True).stdout
    for name, facts in challenges().items():
        assert f"{name}: {facts.title}" in shown
    assert "(not verified)" in shown
    with pytest.raises(ConfigError, match="No challenge 'amoss'. Did you mean 'amos'"):
        challenge_module("amoss")


def test_btcv_round_trip(images, btcv):
    output = make("btcv", images, btcv)
    with zipfile.ZipFile(output) as archive:
        assert archive.namelist() == [f"img{number:04}.nii.gz" for number in range(61, 81)]
        archive.extractall(btcv.parent / "opened")
    for number in range(61, 81):
        opened = nibabel.load(btcv.parent / "opened" / f"img{number:04}.nii.gz")
        np.testing.assert_array_equal(np.asanyarray(opened.dataobj), label_map(number, 13))
        np.testing.assert_allclose(opened.affine, AFFINE)
        assert opened.get_data_dtype() == np.uint8
    report = output.with_suffix(".txt").read_text()
    assert "20 predictions" in report
    assert "could not be verified:\n  - names img0061" in report
    assert "all predictions keep these rules" in report
    first = output.read_bytes()
    with pytest.raises(ConfigError, match="--overwrite"):
        make("btcv", images, btcv)
    make("btcv", images, btcv, overwrite=True)
    assert output.read_bytes() == first
    # what was handed in can be handed in again: its files are named as in the archive
    make("btcv", images, btcv.parent / "opened", overwrite=True)
    assert output.read_bytes() == first
    make("btcv", images, btcv, overwrite=True, options={"prefix": "label"})
    assert zipfile.ZipFile(output).namelist()[0] == "label0061.nii.gz"
    assert [path.name for path in btcv.parent.glob(".partial*")] == []


def test_amos_task_1_leaves_mr_out_and_task_2_takes_it(images, amos):
    output = make("amos", images, amos)
    names = zipfile.ZipFile(output).namelist()
    assert len(names) == 100
    assert names[0] == "results/amos_0008.nii.gz"
    assert not any(int(name[13:17]) > 500 for name in names)
    report = output.with_suffix(".txt").read_text()
    assert "skipped: 20 cases (amos_0501, amos_0502, amos_0503, …)" in report
    assert "documented rules:\n  - validation phase: one zip with the folder results/" in report
    output.unlink()
    make("amos", images, amos, options={"task": 2})
    assert len(zipfile.ZipFile(output).namelist()) == 120
    (amos / "amos_0501.nii.gz").unlink()
    with pytest.raises(DataError, match="amos_0501: no prediction"):
        make("amos", images, amos, options={"task": 2}, overwrite=True)
    make("amos", images, amos, overwrite=True)  # task 1 does not ask for it
    with pytest.raises(DataError, match="has 199 cases; AMOS 2022, task 1 takes exactly 100"):
        make("amos", images, amos, overwrite=True, section="test")


def _missing(folder: Path) -> None:
    (folder / "img0070.nii.gz").unlink()


def _moved(folder: Path) -> None:
    save(folder / "img0070.nii.gz", label_map(70, 13), np.eye(4))


def _cut(folder: Path) -> None:
    save(folder / "img0070.nii.gz", label_map(70, 13)[:-1])


def _float(folder: Path) -> None:
    save(folder / "img0070.nii.gz", label_map(70, 13).astype(np.float32))


def _foreign(folder: Path) -> None:
    save(folder / "img0070.nii.gz", label_map(70, 13) + np.uint8(1))


def _damaged(folder: Path) -> None:
    path = folder / "img0070.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])


def _stray(folder: Path) -> None:
    save(folder / "img0099.nii.gz", label_map(99, 13))


def _twice(folder: Path) -> None:
    save(folder / "img0070.nii", label_map(70, 13))


def _other_format(folder: Path) -> None:
    (folder / "img0070.nii.gz").unlink()
    save(folder / "img0070.nii", label_map(70, 13))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_missing, r"img0070: no prediction in .*; img0070\.nii\.gz is expected"),
        (_moved, "img0070: .*spacing|img0070: the prediction's corners"),
        (_cut, "img0070: image 4×5×3, prediction 3×5×3 voxels"),
        (_float, "img0070: voxel type float32; uint8"),
        (_foreign, "img0070: label values 14; 0 to 13 are expected"),
        (_damaged, r"img0070: img0070\.nii\.gz is cut short or damaged"),
        (_stray, r"img0099\.nii\.gz: belongs to no case"),
        (_twice, r"img0070: has img0070\.nii and img0070\.nii\.gz; one file"),
        (_other_format, r"img0070: img0070\.nii is expected to end with \.nii\.gz"),
    ],
)
def test_a_broken_rule_is_refused_with_its_reason(spoil: Callable[[Path], None], reason, images, btcv):
    spoil(btcv)
    with pytest.raises(DataError, match=f"1 rules are broken, the first by {reason}"):
        make("btcv", images, btcv)
    assert not (btcv.parent / "made.zip").exists()
    assert "1 rules broken:" in (btcv.parent / "made.txt").read_text()


def test_background_throughout_is_a_warning(images, btcv):
    save(btcv / "img0070.nii.gz", np.zeros(SHAPE, np.uint8))
    report = make("btcv", images, btcv).with_suffix(".txt").read_text()
    assert "warning: img0070: background throughout" in report


def test_the_command(images, btcv, tmp_path, capsys):
    output = tmp_path / "made.zip"
    command = ["submit", "btcv", "--predictions", str(btcv), "--json_list", str(images / "btcv.json")]
    assert main([*command, "--output", str(output), "--prefix", "label"]) == 0
    assert capsys.readouterr().out.endswith(f"all predictions keep these rules\nwritten: {output}\n")
    _stray(btcv)
    _float(btcv)
    assert main([*command, "--output", str(output), "--overwrite"]) == 3
    shown = capsys.readouterr()
    assert "img0099.nii.gz: belongs to no case" in shown.out
    assert "voxel type float32" in shown.out
    assert "2 rules are broken" in shown.err
    assert len(zipfile.ZipFile(output).namelist()) == 20  # the one before is left
    for arguments, sentence in (
        (["--output", str(tmp_path / "made.tar")], "takes a .zip file"),
        (["--output", str(tmp_path / "x.zip"), "--prefix", "lbl"], "use 'img' or 'label'"),
        ([], "needs --output"),
    ):
        assert main([*command, *arguments]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["submit", "btcv", "--output", str(tmp_path / "x.zip"), "--predictions", str(btcv)]) == 2
    assert main([*command, "--output", str(tmp_path / "x.zip"), "--section", "training"]) == 3
