"""A network of whole volumes: planned without windows, trained, and run on an image larger than those of its training."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import yaml

from medseg.cli import main


def test_train_and_infer(make_datalist, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ["--set", "network_def::filters=4", "--set", "network_def::num_convs=[1,1]", "--set", "repeats=1"]
    command = ["train", "--network", "hnoseg_xs", "--json_list", str(make_datalist()), "--output", str(run)]
    assert main([*command, "--epochs", "1", "--device", "cpu", *settings]) == 0
    config = yaml.safe_load((run / "configs" / "inference.yaml").read_text())
    assert config["inferer"]["_target_"] == "medseg.inferers.WholeVolume" and "overlap" not in config
    assert config["roi_size"] == [26, 24, 22]
    metadata = json.loads((run / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["inputs"]["image"]["is_patch_data"] is False

    large, out = tmp_path / "large.nii.gz", tmp_path / "out"
    noise = np.random.default_rng(0).normal(0, 10, (41, 27, 30)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), large)
    assert main(["infer", "--run", str(run), "--output", str(out), str(large)]) in (0, 6)
    (found,) = out.rglob("*.nii.gz")
    assert nibabel.load(found).shape == (41, 27, 30)
