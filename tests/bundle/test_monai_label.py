"""What MONAI Label's bundle app does with a bundle: it builds the parts of inference.yaml one by one, and gives them a
dictionary of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import LoadImaged, SaveImaged

BUNDLE = Path(__file__).parents[2] / "bundles" / "ssh_unet_btcv_ct_segmentation"
SHAPE = (20, 24, 18)


@pytest.fixture
def parser(tmp_path: Path) -> ConfigParser:
    """As ``monailabel.tasks.infer.bundle`` reads a bundle, narrower."""
    shutil.copytree(BUNDLE / "configs", tmp_path / "bundle" / "configs")
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "bundle" / "configs" / "inference.yaml"))
    parser.config.update({"bundle_root": str(tmp_path / "bundle")})
    parser.config["network_def"]["filters"] = [4] * 5
    parser.config["roi_size"] = [16, 16, 16]
    return parser


def answered(parser: ConfigParser, folder: Path, *, writers: bool) -> dict[str, Any]:
    """One request: an image by its path, without a case's id; ``writers``: as the bundle has them."""
    path = folder / "volume.1.nii.gz"
    values = np.random.default_rng(0).normal(40, 60, SHAPE).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 1.5, 3.0, 1.0])), path)
    data: dict[str, Any] = {"image": str(path), "image_path": str(path), "model": "bundle", "device": "cpu"}
    for step in parser.get_parsed_content("preprocessing").transforms:
        if isinstance(step, LoadImaged):
            step._loader.image_only = False
        data = step(data)
    network = parser.get_parsed_content("network_def").eval()
    with torch.no_grad():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
    for step in parser.get_parsed_content("postprocessing").transforms:
        if writers or not isinstance(step, SaveImaged):
            data = step(data)
    return data


def test_a_request_is_answered_on_the_grid_of_its_image(parser: ConfigParser, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = answered(parser, tmp_path, writers=False)
    assert data["pred"].shape == (1, *SHAPE)
    assert np.allclose(data["pred"].affine, np.diag([2.0, 1.5, 3.0, 1.0]))
    assert data["image_path"] == str(tmp_path / "volume.1.nii.gz")
    assert list(tmp_path.rglob("*.nii.gz")) == [tmp_path / "volume.1.nii.gz"]  # the server writes, not the bundle


def test_a_writer_without_a_case_names_its_file_as_the_image(parser: ConfigParser, tmp_path: Path) -> None:
    answered(parser, tmp_path, writers=True)
    written = tmp_path / "bundle" / "eval" / "predictions" / "volume.1.nii.gz"
    assert nibabel.load(written).shape == SHAPE
