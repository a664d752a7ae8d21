"""One implementation: MONAI's own command and medseg's functions run the same bundle to the same bits."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import KeepLargestConnectedComponent

from medseg.bundle.compose import load_workflow
from medseg.cli import main
from medseg.labels import LabelSpace
from medseg.storage import read_yaml
from medseg.workflows.prediction import predict
from medseg.workflows.training import train
from medseg.workflows.validation import evaluate

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "ssh_unet_btcv_ct_segmentation"
OURS = {
    "roi_size": [32, 32, 32],
    "epochs": 1,
    "val_interval": 1,
    "num_workers": 0,
    "augment::samples_per_case": 2,
    "network_def::filters": [4, 8, 8, 8, 8],
}


@pytest.fixture(scope="module")
def datalist(make_datalist) -> Path:
    labels = ConfigParser.load_config_file(str(BUNDLE / "configs" / "train.yaml"))["labels"]
    return make_datalist(labels=LabelSpace.from_table(labels).labels)


@pytest.fixture(scope="module")
def ours(datalist, tmp_path_factory) -> Path:
    """A run by ``medseg.workflows.training`` with the overlay ``gsm``."""
    return train(
        bundle=BUNDLE,
        output=tmp_path_factory.mktemp("ours") / "run",
        json_list=datalist,
        device="cpu",
        overrides=OURS,
        overlays=["gsm"],
    )


@pytest.fixture(scope="module")
def stock(datalist, tmp_path_factory) -> Path:
    """The same by ``python -m monai.bundle run`` in the bundle's folder."""
    folder = tmp_path_factory.mktemp("stock") / "bundle"
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("eval", "models"))
    arguments = {"config_file": ["configs/train.yaml", "configs/gsm.yaml"], "device": "cpu"}
    arguments |= {"json_list": str(datalist), "dataset_dir": str(datalist.parent), "output_dir": str(folder)}
    (folder / "args.json").write_text(json.dumps(arguments | OURS))
    subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "--args_file", "args.json"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


def rows(run: Path) -> list[dict]:
    with (run / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def tensors(value: object, prefix: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in tensors(item, f"{prefix}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, item in enumerate(value) for k, v in tensors(item, f"{prefix}/{i}").items()}
    return {prefix: value}


def test_losses_and_scores_are_equal(stock, ours):
    assert rows(stock) == rows(ours)
    assert len(rows(ours)) == 1


def test_every_number_of_the_checkpoints_is_equal(stock, ours):
    one, two = (tensors(torch.load(run / "checkpoints" / "last.pt", weights_only=True)) for run in (stock, ours))
    assert one.keys() == two.keys()
    compared = [key for key in one if "elapsed" not in key and "seconds" not in key]
    assert sum(isinstance(one[key], torch.Tensor) for key in compared) > 100
    for key in compared:
        assert torch.equal(one[key], two[key]) if isinstance(one[key], torch.Tensor) else one[key] == two[key], key


def test_batches_are_equal(stock, ours, datalist):
    digests = []
    for folder, overrides, overlays in (
        (ours, {}, ()),
        (stock, OURS | {"json_list": str(datalist), "dataset_dir": str(datalist.parent)}, ("gsm",)),
    ):
        workflow = load_workflow(folder, "train", overrides, overlays)
        loader = workflow.parser.get_parsed_content("train::dataloader")
        digests.append(
            [(batch["case_id"], batch["image"].sum().item(), batch["label"].sum().item()) for batch in loader]
        )
    assert digests[0] == digests[1]
    assert [len(ids) for ids, _, _ in digests[0]] == [4, 4]  # 2 volumes x 2 windows


def test_the_run_is_a_bundle_with_the_overlay_in_both_configs(ours):
    for name in ("train", "inference"):
        config = read_yaml(ours / "configs" / f"{name}.yaml")
        assert config["network_def"]["gate_type"] == "gsm"
        assert config["network_def"]["filters"] == [4, 8, 8, 8, 8]
        assert config["roi_size"] == [32, 32, 32]
        assert config["bundle_root"] == "."
        assert config["json_list"]["name"] == "configs/datalist.json"
    assert read_yaml(ours / "configs" / "inference.yaml")["output_dir"] == "@results"


def test_the_run_predicts_on_the_images_own_grid(ours, datalist, tmp_path):
    (path,) = predict(ours, tmp_path, json_list=datalist, device="cpu")
    image = nibabel.load(datalist.parent / "images" / "case_5.nii.gz")
    predicted = nibabel.load(path)
    assert predicted.shape == image.shape
    np.testing.assert_allclose(predicted.affine, image.affine)


def test_the_published_protocol_is_another_one(ours, datalist):
    plain = evaluate(ours, device="cpu")
    published = evaluate(ours, device="cpu", overlays=["evaluate_published"])
    assert "background" not in plain.labels
    assert "hd95" in plain.labels["spleen"]
    assert "hd95" not in published.labels["spleen"]
    # by hand from the kept label map: one component per label, Dice with background, mean over labels
    assert published.definition.postprocessing == "cleaned"  # the largest component of each label
    predicted = nibabel.load(ours / "predictions_published" / "case_4.nii.gz").get_fdata()
    label = nibabel.load(datalist.parent / "labels" / "case_4.nii.gz").get_fdata()
    np.testing.assert_array_equal(KeepLargestConnectedComponent()(torch.from_numpy(predicted)[None])[0], predicted)
    values = np.unique(label)
    dice = [2 * np.sum((predicted == v) & (label == v)) / (np.sum(predicted == v) + np.sum(label == v)) for v in values]
    assert values[0] == 0
    assert published.labels["background"]["dice"].mean == pytest.approx(dice[0])
    assert published.mean_dice == pytest.approx(np.mean(dice))


def test_python_beside_the_configs_is_not_run(ours, tmp_path, monkeypatch):
    for name in ("itk", "nrrd", "cucim", "pydicom"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        for folder in (ours, ours / "configs"):
            (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')")
    try:
        evaluate(ours, device="cpu")
    finally:
        for path in [*ours.glob("*.py"), *ours.glob("configs/*.py")]:
            path.unlink()
    assert not (tmp_path / "pwned").exists()


def test_without_weights_inference_ends_with_status_4(datalist, tmp_path, capsys):
    status = main(["infer", "--bundle", str(BUNDLE), "--json_list", str(datalist), "--output", str(tmp_path)])
    assert status == 4
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "model.pt" in message
    assert "Train" in message
