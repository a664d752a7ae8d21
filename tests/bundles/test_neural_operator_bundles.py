"""The bundles of the neural-operator family: published setting, one wiring for all, overlays that train, their choice
of the model and their protocol.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from medseg.bundle.compose import load_workflow
from medseg.cli import main
from medseg.labels import LabelSpace
from medseg.metrics.surface_area import area_surface_scores
from medseg.weights import load_file
from medseg.workflows import train
from medseg.workflows.run_folder import differences

ROOT = Path(__file__).parents[2]
BUNDLES = {
    path.name.partition("_brats23")[0]: path for path in sorted((ROOT / "bundles").glob("*_brats23_mri_segmentation"))
}
SETTINGS = {
    "epochs": 300,
    "val_interval": 1,
    "selection_portion": 0.5,
    "learning_rate": 0.005,
    "end_learning_rate": 0.001,
    "weight_decay": 0.0,
    "batch_size": 1,
    "clip_norm": None,
    "roi_size": [78, 120, 120],
    "preprocess::scale": 0.5,
    "preprocess::mode": "nearest",
    "preprocess::normalization": [{"kind": "case", "nonzero": True}],
    "augment::rotate": [30, 0, 0],
    "augment::shift": [0.2] * 3,
    "augment::zoom": [0.8, 1.2],
    "augment::flip": [False] * 3,
    "augment::prob": 0.8,
    "optimizer::_target_": "torch.optim.Adamax",
    "loss::_target_": "medseg.losses.PearsonLoss",
    "labels::regions": {
        "WT": ["necrotic tumor core", "edema", "enhancing tumor"],
        "TC": ["necrotic tumor core", "enhancing tumor"],
        "ET": ["enhancing tumor"],
    },
}
TINY = {
    "preprocess::scale": 1.0,
    "epochs": 5,
    "num_workers": 0,
    "cache": "plain",
    "network_def::filters": 4,
    "network_def::num_convs": [1, 1],
}


def config(name: str, *files: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(BUNDLES[name] / "configs" / f"{file}.yaml") for file in files])
    return parser


@pytest.mark.parametrize("name", BUNDLES)
def test_the_setting_is_the_publications(name):
    found = config(name, "train")
    assert {key: found[key] for key in SETTINGS} == SETTINGS


def test_the_bundles_differ_in_their_network_alone():
    first = BUNDLES["hnoseg_xs"] / "configs"
    for name, bundle in BUNDLES.items():
        for path in first.glob("*.yaml"):
            configs = [ConfigParser.load_config_file(str(folder / path.name)) for folder in (first, bundle / "configs")]
            found = differences(*configs)
            assert all(key.startswith("network_def") for key in found), (name, path.name)


@pytest.mark.parametrize(
    ("overlay", "channels", "outputs", "parameters"),
    [("kits23", 1, 4, 34_656), ("mvseg23", 1, 3, None), ("regions", 4, 3, None)],
)
def test_overlays_change_data_and_channels_together(overlay, channels, outputs, parameters):
    for name in BUNDLES:
        found = config(name, "inference", overlay)
        assert (found["network_def::in_channels"], found["network_def::out_channels"]) == (channels, outputs)
        space = LabelSpace.from_table(found["labels"])
        assert space.num_channels == outputs
        assert [math.ceil(n / 2) for n in found["preprocess::size"] or (155, 240, 240)] == found["roi_size"]
    with torch.device("meta"):
        network = config("hnoseg_xs", "inference", overlay).get_parsed_content("network_def")
    assert parameters is None or sum(p.numel() for p in network.parameters()) == parameters


@pytest.fixture(scope="module")
def datalist(make_datalist) -> Path:
    table = config("hnoseg_xs", "train")["labels"]
    return make_datalist(labels=tuple(LabelSpace.from_table(table).labels), modality=("T1c", "T1n", "T2-FLAIR", "T2w"))


@pytest.fixture(scope="module")
def run(datalist, tmp_path_factory) -> Path:
    """Five epochs of the bundle, which medseg trains without being asked to trust it."""
    bundle = BUNDLES["hnoseg_xs"]
    return train(
        bundle=bundle, output=tmp_path_factory.mktemp("xs") / "run", json_list=datalist, device="cpu", overrides=TINY
    )


def test_the_lowest_validation_loss_of_the_later_epochs_is_kept(run):
    """Published: epochs above int(5 / 2) = 2, counted from 0; here the loss is that of ``metrics`` in TensorBoard."""
    parser = load_workflow(run, "train").parser
    assert parser.get_parsed_content("checkpoint").select_after == 3
    best = load_file(run / "checkpoints" / "best.pt")
    assert best["epoch"] in (4, 5) and 0 < best["metric"] < 1
    network, loss = parser.get_parsed_content("network_def"), parser.get_parsed_content("loss")
    network.load_state_dict(load_file(run / "models" / "model.pt"))
    (batch,) = list(parser.get_parsed_content("validate::dataloader"))
    with torch.no_grad():
        assert float(loss(network.eval()(batch["image"].as_tensor()), batch["label"])) == pytest.approx(
            best["metric"], abs=1e-5
        )
    with (run / "metrics.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates[-1] == pytest.approx(0.001) and rates == sorted(rates, reverse=True)  # of 20 iterations


def test_the_published_protocol_is_full_size_with_areas(run, datalist, capsys):
    assert main(["validate", "--run", str(run), "--device", "cpu"]) == 0
    plain = json.loads((run / "metrics.json").read_text())
    assert list(plain["labels"]) == ["WT", "TC", "ET"]
    command = ["validate", "--run", str(run), "--device", "cpu", "--overlay", "evaluate_published"]
    assert main([*command, "--set", "preprocess::scale=0.5"]) == 0
    half = json.loads((run / "metrics.json").read_text())
    assert main(command) == 0
    content = json.loads((run / "metrics.json").read_text())
    assert list(content["metrics"]) == ["dice", "hd95_area_opened", "surface_dice_area_at_voxel"]
    assert list(plain["metrics"]) == ["dice", "hd95", "surface_dice"]
    assert (content["empty"], plain["empty"]) == ("no_penalty", "penalty")
    dice = {name: row["dice"] for name, row in content["cases"]["case_4"].items()}
    assert dice == {
        name: pytest.approx(row["dice"]) for name, row in plain["cases"]["case_4"].items()
    }  # scale 1 already
    assert half["cases"] != content["cases"]
    folder = datalist.parent / "labels" / "case_4.nii.gz"
    predicted, label = (nibabel.load(p).get_fdata() for p in (run / "predictions_published" / "case_4.nii.gz", folder))
    hd95, surface = area_surface_scores(predicted > 0, label > 0, (1.0, 1.0, 1.0))
    row = content["cases"]["case_4"]["WT"]
    assert row["surface_dice_area_at_voxel"] == pytest.approx(surface)
    assert row["hd95_area_opened"] == (pytest.approx(hd95) if np.isfinite(hd95) else None)


def test_regions_train_and_predict(datalist, tmp_path):
    run = train(
        bundle=BUNDLES["hnoseg_xs"], output=tmp_path / "run", json_list=_regions(datalist, tmp_path), device="cpu",
        data_dir=datalist.parent, overrides=TINY | {"epochs": 1}, overlays=["regions"],
    )  # fmt: skip
    assert main(["validate", "--run", str(run), "--device", "cpu"]) == 0
    assert list(json.loads((run / "metrics.json").read_text())["labels"]) == ["WT", "TC", "ET"]
    arguments = ["--json_list", str(datalist), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["infer", "--run", str(run), *arguments]) == 0
    assert (tmp_path / "out" / "case_5.nii.gz").is_file()


def _regions(datalist: Path, folder: Path) -> Path:
    """The same cases with the label space in sigmoid mode, as ``medseg prepare brats --mode sigmoid`` writes it."""
    table = json.loads(datalist.read_text())
    table["label_space"] = dict(config("hnoseg_xs", "train", "regions")["labels"])
    path = folder / "regions.json"
    path.write_text(json.dumps(table))
    return path
