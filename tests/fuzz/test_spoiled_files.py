"""Spoiled images, checkpoints and run files: every answer is one of medseg's family, within ten seconds."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from mutation import mutations, spoiled_bytes, spoiled_value, survives
from PIL import Image
from torch import nn

from medseg.data import Case
from medseg.data.files import Unreadable, read_grid, read_volume
from medseg.data.inspect import inspect_cases
from medseg.engines import Checkpoint
from medseg.engines.epoch_table import read_rows
from medseg.engines.run_facts import read_facts
from medseg.labels import LabelSpace
from medseg.metrics import ScoreDefinition, ScoreFacts, Scores
from medseg.reports import write_report
from medseg.weights import load_weights, save_file
from medseg.workflows.compare import compare

_SPACE = LabelSpace.from_table({"labels": {"background": 0, "liver": 1}})
_LABEL = np.pad(np.ones((4, 5, 3), np.uint8), 2)


def _images(folder: Path) -> dict[str, bytes]:
    for suffix in (".nii", ".nii.gz"):
        nibabel.save(nibabel.Nifti1Image(_LABEL.astype(np.int16) * 100, np.diag([1, 2, 3, 1])), folder / f"a{suffix}")
    image = SimpleITK.GetImageFromArray(_LABEL)
    for suffix in (".mha", ".nrrd"):
        SimpleITK.WriteImage(image, str(folder / f"a{suffix}"), suffix == ".nrrd")
    for suffix in (".png", ".jpg", ".tif", ".bmp"):
        Image.fromarray(np.stack([_LABEL[:, :, 3] * 90] * 3, -1)).save(folder / f"a{suffix}")
    return {path.suffix: path.read_bytes() for path in folder.iterdir() if path.name != "a.nii.gz"} | {
        ".nii.gz": (folder / "a.nii.gz").read_bytes()
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory: Any) -> dict[str, bytes]:
    return _images(tmp_path_factory.mktemp("images"))


@mutations(240)
def test_images(seed: int, images: dict[str, bytes], tmp_path_factory: Any) -> None:
    suffix = sorted(images)[seed % len(images)]
    path = tmp_path_factory.getbasetemp() / f"spoiled{suffix}"
    path.write_bytes(spoiled_bytes(images[suffix], seed))
    survives(lambda: read_volume(path), Unreadable)
    survives(lambda: read_grid(path), Unreadable)
    case = Case("a", (str(path),), str(path))
    assert survives(lambda: inspect_cases([case], _SPACE))  # which notes the problems of a case


def test_header_of_more_voxels_than_the_file_holds(tmp_path: Path, images: dict[str, bytes]) -> None:
    for suffix in (".nii", ".nii.gz"):
        path = tmp_path / f"huge{suffix}"
        image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
        image.header.set_data_shape((30000, 30000, 1200))
        content = bytes(image.header.binaryblock) + bytes(4 + 8)
        path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
        with pytest.raises(Unreadable, match=r"promises \d+ bytes of voxels"):
            read_volume(path)
    path = tmp_path / "huge.mha"
    path.write_bytes(images[".mha"].replace(b"DimSize = 7 9 8", b"DimSize = 30000 30000 1200"))
    with pytest.raises(Unreadable, match=r"promises|cannot be read|cut short"):
        read_volume(path)


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.Conv3d(4, 2, 1))


def _saver(folder: Path, network: nn.Module) -> Checkpoint:
    return Checkpoint(folder, folder / "model.pt", network, torch.optim.SGD(network.parameters(), 0.1))


@mutations(60)
def test_checkpoints(seed: int, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "checkpoints"
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    network = _network()
    sound = folder / "previous.pt"
    state = {"network": network.state_dict(), "optimizer": {}, "scaler": {}, "lr_scheduler": None, "average": None}
    state |= {"epoch_length": 4, "best_metric_epoch": 1, "threads": 1, "iteration": 41}
    state |= {"loss_sum": 0.5, "best_metric": 0.5, "elapsed_seconds": 1.0}
    if not sound.exists():
        save_file(state, sound)
    legacy = seed % 4 == 0  # torch's format before zip, which has no checksums
    torch.save(state, folder / "whole.pt", _use_new_zipfile_serialization=not legacy)
    content = (folder / "whole.pt").read_bytes()
    (folder / "last.pt").write_bytes(spoiled_bytes(content, seed))
    other = _network()
    loaded = survives(lambda: load_weights(other, folder / "last.pt"))
    if loaded and not legacy:  # nothing else passes the checksums
        assert all(
            torch.equal(a, b) for a, b in zip(other.state_dict().values(), state["network"].values(), strict=True)
        )
    assert survives(lambda: _saver(folder, network)._newest())  # from the previous state, if need be


# ---------------------------------------------------------------------- run folders
def _write_run(run: Path) -> None:
    (run / "configs").mkdir(parents=True)
    table = {
        "name": "toy",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver"},
        "training": [{"image": "a.nii.gz", "label": "b.nii.gz", "fold": 0}],
    }
    (run / "configs" / "datalist.json").write_text(json.dumps(table), encoding="utf-8")
    config = {
        "dataset_dir": str(run),
        "roi_size": [16, 16, 16],
        "epochs": 2,
        "labels": {"labels": {"background": 0, "liver": 1}},
        "augment": {"flip": 0.5},
        "preprocess": {
            "roi_size": "@roi_size",
            "spacing": [1.5, 1.5, 3.0],
            "normalization": [{"kind": "fixed", "lower": -20, "upper": 120, "mean": 40, "std": 30}],
        },
        "network_def": {"_target_": "monai.networks.nets.UNet", "in_channels": 1, "strides": [2, 2]},
    }
    (run / "configs" / "train.yaml").write_text(json.dumps(config, indent=1), encoding="utf-8")
    facts = {"status": "finished", "seed": 7, "training_seconds": 61.0, "training_cases": ["b"], "network": "UNet"}
    (run / "run.json").write_text(json.dumps(facts | {"versions": {"medseg": "1"}}), encoding="utf-8")
    (run / "metrics.csv").write_text("epoch,iteration,loss,learning_rate,mean_dice,seconds\n1,4,0.5,0.01,0.5,1\n")
    scores = {f"c{i}": {"liver": {"dice": i / 4, "hd95": 1.0 * i, "surface_dice": 0.5}} for i in range(4)}
    definition = ScoreDefinition(space="source", unit="mm", empty="penalty", cleanup={})
    Scores.of(scores, definition, ScoreFacts(section=None, fold=None)).write(run)


_RUN_FILES = ("run.json", "metrics.json", "configs/train.yaml", "configs/datalist.json", "metrics.csv")


@mutations(50)
def test_run_files(seed: int, tmp_path_factory: Any) -> None:
    base = tmp_path_factory.getbasetemp() / "runs"
    sound, run = base / "sound", base / "run"
    if not sound.exists():
        _write_run(sound)
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(sound, run)
    file = run / _RUN_FILES[seed % len(_RUN_FILES)]
    if file.suffix == ".csv" or seed % 3 == 0:
        file.write_bytes(spoiled_bytes(file.read_bytes(), seed))
    else:
        file.write_text(json.dumps(spoiled_value(json.loads(file.read_text(encoding="utf-8")), seed)))
    survives(lambda: write_report(run))
    survives(lambda: compare([sound, run], base / "out"))
    survives(lambda: read_facts(run))
    survives(lambda: read_rows(run / "metrics.csv"))
