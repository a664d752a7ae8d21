"""From the downloaded archive to the submission, by commands: prepare, (a trained run), submit."""

from __future__ import annotations

import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medseg.bundle.draft import Draft
from medseg.cli import main
from medseg.data import PlanSettings, inspect_cases, make_plan, read_datalist
from medseg.datasets.btcv import FACTS
from medseg.networks import create_network
from medseg.weights import save_file

_UNET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 14, "channels": [4, 8], "strides": [2]}
_AFFINE = np.diag([-2.0, -2.0, 2.0, 1.0])


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """BTCV as unpacked, each volume 8 x 9 x 7 voxels."""
    rng, root = np.random.default_rng(0), tmp_path / "RawData"
    for number in (*range(1, 11), *range(21, 41), *range(61, 81)):
        folder = root / ("Training" if number < 61 else "Testing")
        for kind in ("img", "label") if number < 61 else ("img",):
            voxels = rng.normal(50, 40, (8, 9, 7)) if kind == "img" else rng.integers(0, 14, (8, 9, 7))
            (folder / kind).mkdir(parents=True, exist_ok=True)
            voxels = voxels.astype(np.int16 if kind == "img" else np.uint8)
            nibabel.save(nibabel.Nifti1Image(voxels, _AFFINE), folder / kind / f"{kind}{number:04}.nii.gz")
    return root


def _trained(datalist_path: Path, folder: Path) -> Path:
    """A run with random weights."""
    datalist = read_datalist(datalist_path)
    facts = inspect_cases(datalist.sections["training"][:2], datalist.label_space, datalist.channels)
    plan = make_plan(datalist, facts, PlanSettings(roi_size=(8, 8, 8)))
    run = Draft.planned("UNet", _UNET, datalist, plan).write(folder)
    torch.manual_seed(0)
    save_file(create_network("UNet", **_UNET).state_dict(), run / "models" / "model.pt")
    return run


def test_from_the_archive_to_the_submission(raw, tmp_path, capsys):
    data = tmp_path / "data"
    assert main(["prepare", "btcv", "--raw", str(raw), "--out", str(data)]) == 0
    assert "24 training, 6 validation, 20 test cases; CT; 13 labels" in capsys.readouterr().out
    run = _trained(data / "btcv.json", tmp_path / "run")
    output = tmp_path / "out" / "btcv.zip"
    command = ["submit", "btcv", "--run", str(run), "--output", str(output), "--device", "cpu"]
    assert main(command) == 0
    with zipfile.ZipFile(output) as archive:
        assert len(archive.namelist()) == 20
        archive.extract("img0080.nii.gz", tmp_path)
    opened = nibabel.load(tmp_path / "img0080.nii.gz")
    assert opened.shape == (8, 9, 7)
    np.testing.assert_allclose(opened.affine, _AFFINE)
    values = np.unique(np.asanyarray(opened.dataobj))
    assert values.dtype == np.uint8
    assert set(values) <= set(FACTS.labels)
    predicted = tmp_path / "out" / "btcv_predictions" / "img0080.nii.gz"
    before = predicted.stat().st_mtime_ns
    (predicted.parent / "img0061.nii.gz").unlink()
    assert main([*command, "--overwrite"]) == 0
    assert predicted.stat().st_mtime_ns == before  # made once; only what was missing is made again
