"""The bundles of Hermes: the published setting and protocol, and weights of the original in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from full_set import FULL_SET
from monai.bundle import ConfigParser

from medseg.bundle.compose import load_workflow
from medseg.cli import main
from medseg.data import read_datalist
from medseg.errors import ConfigError
from medseg.inferers import HalfStepWindow
from medseg.labels import LabelSpace
from medseg.networks import create_network
from medseg.weights.original import architectures
from medseg.workflows.checks import check_fit
from medseg.workflows.run_folder import differences

ROOT = Path(__file__).parents[2]
BUNDLES = {name: ROOT / "bundles" / f"hermes_{name}_universal_segmentation" for name in ("resunet", "medformer")}
SETTINGS = {
    "epochs": 200,
    "iterations": 400,
    "val_interval": 25,
    "learning_rate": 0.002,
    "batch_size": 2,
    "clip_norm": None,
    "ema_decay": 0.99,
    "roi_size": [128, 128, 128],
    "preprocess::spacing": [1.5, 1.5, 1.5],
    "augment::affine": 0.5,
    "augment::intensity": 0.1,
    "augment::intensity_of": {"amos_mr": 0.2, "chaos": 0.2, "mnm": 0.2},
    "optimizer::_target_": "medseg.optimizers.Lamb",
    "optimizer::betas": [0.9, 0.999],
    "optimizer::eps": 1e-5,
    "lr_scheduler::name": "exp_poly",
    "lr_scheduler::steps": "@epochs",
    "loss": {"_target_": "medseg.losses.TaskLoss", "modality_weight": 0.01},
    "network_def::out_channels": 72,
    "network_def::num_modalities": 5,
    "network_def::mask_null": False,
    "null_tasks": 1,
}
OWN = {
    "resunet": {"weight_decay": 1e-5, "warmup": 5 / 200},
    "medformer": {"weight_decay": 0.05, "warmup": 0.0},
}
KEYS = FULL_SET / "hermes" / "state_dict_keys_hermes_resunet.txt"


def config(name: str, *files: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(BUNDLES[name] / "configs" / f"{file}.yaml") for file in files])
    return parser


@pytest.mark.parametrize("name", BUNDLES)
def test_the_setting_is_the_publications(name: str) -> None:
    found = config(name, "train")
    expected = SETTINGS | OWN[name]
    assert {key: found[key] for key in expected} == expected


def test_the_bundles_differ_in_network_decay_and_warmup_alone() -> None:
    folders = [bundle / "configs" for bundle in BUNDLES.values()]
    for path in folders[0].glob("*.yaml"):
        found = differences(*(ConfigParser.load_config_file(str(folder / path.name)) for folder in folders))
        assert {key.partition("::")[0] for key in found} <= {"network_def", "weight_decay", "warmup"}, path.name


def test_labels_and_weights_are_those_of_the_lists(tmp_path: Path) -> None:
    for path in (ROOT / "data_json" / "hermes").glob("*.json"):
        (tmp_path / path.stem).mkdir()
    datalist = read_datalist(ROOT / "data_json" / "hermes" / "universal.yaml", tmp_path)
    found = config("resunet", "train")
    space = LabelSpace.from_table(found["labels"])
    own = datalist.label_space
    assert dict(space.fragments) == dict(own.fragments) and space.modalities == own.modalities
    assert dict(zip(space.labels, space.task_ids, strict=True)) == dict(zip(own.labels, own.task_ids, strict=True))
    assert found["weights"] == datalist.table["weights"]
    check_fit([], datalist, found.get())
    found["labels::datasets::lits::labels::lits liver"] = 3
    with pytest.raises(ConfigError, match="Data set 'lits' has other labels"):
        check_fit([], datalist, found.get())
    del found["labels"]["datasets"]["kits"], found["labels"]["datasets"]["lits"]
    with pytest.raises(ConfigError, match="The bundle has no data set 'lits'"):
        check_fit([], datalist, found.get())


@pytest.fixture(scope="module")
def liver(make_datalist: Any) -> Path:
    """Cases of LiTS at 1.5 mm, on which the published arrays are (z, y, x)."""
    return make_datalist(
        labels=("lits liver", "lits liver tumour"),
        spacing=(1.5, 1.5, 1.5),
        shape=(18, 16, 14),
        case={"dataset": "lits", "modality": "ct"},
        label_space=dict(config("resunet", "train")["labels"]),
    )


@pytest.mark.usefixtures("full_set")
def test_the_originals_checkpoint_runs_in_the_bundle(liver: Path, tmp_path: Path) -> None:
    """Imported by command with its configuration; scored by the published protocol."""
    theirs = {"arch": "resunet", "in_chan": 1, "base_chan": 8, "block": "BasicBlock", "norm": "in", "tn": 72, "mn": 6}
    theirs |= {"epochs": 200, "base_lr": 0.002, "down_scale": [[2, 2, 2]] * 4}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(theirs))
    torch.manual_seed(0)
    arguments = {"base_channels": 8, "num_modalities": 5, "mask_null": False}
    ours = create_network("hermes_resunet", spatial_dims=3, in_channels=1, out_channels=72, **arguments)
    keys = [line.split("\t")[0] for line in KEYS.read_text().splitlines() if not line.startswith("#")]
    names = architectures("hermes")["hermes_resunet"].convert({key: torch.zeros(()) for key in keys}, ours).origin
    state = {f"module._orig_mod.{names[key]}": value for key, value in ours.state_dict().items()}
    blank = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save({"epoch": 199, "model_state_dict": blank, "ema_model_state_dict": state}, tmp_path / "theirs.pth")
    command = ["import-weights", "--system", "hermes", "--config", str(tmp_path / "theirs.yaml")]
    weights = tmp_path / "model.pt"
    assert main([*command, "--checkpoint", str(tmp_path / "theirs.pth"), "--output", str(weights)]) == 0
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in torch.load(weights).items())

    case = {"json_list": str(liver), "dataset_dir": str(liver.parent), "num_workers": 0, "cache": "plain"}
    changes = case | {"ckpt_path": str(weights), "output_dir": str(tmp_path), "network_def::base_channels": 8}
    changes |= {"roi_size": [16, 16, 16], "device": "cpu"}
    overlays = ["evaluate_published", "published_weights"]
    load_workflow(BUNDLES["resunet"], "evaluate", changes, overlays).run()
    scores = json.loads((tmp_path / "metrics.json").read_text())["cases"]["case_4"]
    image, label = (nibabel.load(liver.parent / kind / "case_4.nii.gz").get_fdata() for kind in ("images", "labels"))
    image = np.clip(image, -991, 500)
    window = torch.from_numpy((image - image.mean()) / image.std()).float().permute(2, 1, 0)[None, None]
    window = torch.nn.functional.pad(window, (0, 0, 0, 0, 1, 1))  # 14 slices to 16, which are scored
    label = np.pad(label, ((0, 0), (0, 0), (1, 1)))
    with torch.no_grad():
        (logits,) = HalfStepWindow([16] * 3)(window, ours.eval(), torch.tensor([[0, 1, -1]]), torch.tensor([0]))
    for value, (name, row) in enumerate(scores.items(), 1):
        predicted, true = (logits[value - 1].numpy() >= 0).transpose(2, 1, 0), label == value
        assert name == f"lits: {('lits liver', 'lits liver tumour')[value - 1]}" and [*row] == ["dice"]
        assert row["dice"] == pytest.approx(2 * (predicted & true).sum() / (predicted.sum() + true.sum()))
