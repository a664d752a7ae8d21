"""Universal training: batches of several data sets, and a whole training of two, alone and under torchrun."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from test_torchrun import torchrun

from medseg.engines import PrepareTasks
from medseg.labels import IGNORE, LabelSpace
from medseg.losses import TaskTarget
from medseg.transforms import TasksToLabelsd
from medseg.weights import load_file
from medseg.workflows.new_bundle import new_bundle
from medseg.workflows.training import train

LABELS = {
    "mode": "sigmoid",
    "tasks": {"box": 0, "cube": 3, "ball": 1},
    "modalities": {"ct": 0, "mr": 1},
    "datasets": {
        "one": {"labels": {"background": 0, "box": 1, "cube": 2}},
        "two": {"labels": {"background": 0, "ball": 7}, "ignore": [9]},
    },
}
SPACE = LabelSpace.from_table(LABELS)
BOX, BALL, CUBE = 1, 2, 3  # indices: by task id

# What turns the bundle of one data set into universal training, as Hermes trains.
OVERLAY = """
ema_decay: 0.9
schedule: exp_poly
average::ramp: true
network_def::out_channels: 6
network_def::num_modalities: 2
loss: {_target_: medseg.losses.TaskLoss}
optimizer:
  _target_: medseg.optimizers.Lamb
  params: {_target_: medseg.optimizers.parameter_groups, network: "@network", learning_rate: "@learning_rate"}
  lr: "@learning_rate"
  weight_decay: 0.00001
lr_scheduler::steps: "@epochs"
lr_scheduler::warmup: 0.5
train::handlers::5::epoch_level: true
preprocess:
  {_target_: medseg.transforms.hermes_preprocessing, _mode_: callable, roi_size: "@roi_size", spacing: [1.0, 1.0, 1.0]}
augment:
  {_target_: medseg.transforms.hermes_augmentation, _mode_: callable, roi_size: "@roi_size", intensity_of: {two: 0.2}}
train::dataloader::weights: {one: 1.0, two: 3.0}
train::dataloader::iterations: 3
train::trainer::prepare_batch: {_target_: medseg.engines.PrepareTasks, label_space: "@label_space"}
validate::evaluator::prepare_batch:
  {_target_: medseg.engines.PrepareTasks, label_space: "@label_space", training: false}
validate::postprocessing::transforms:
  - {_target_: medseg.transforms.TasksToLabelsd, keys: pred, label_space: "@label_space"}
"""


def batch() -> dict[str, Any]:
    label = torch.zeros(3, 1, 2, 2, 2, dtype=torch.int16)
    label[0, 0, 0, 0] = torch.tensor([BOX, CUBE])
    label[1, 0, 1, 1] = torch.tensor([BALL, IGNORE])
    return {
        "image": torch.randn(3, 1, 2, 2, 2),
        "label": label,
        "dataset": ["one", "two", "two"],
        "modality": ["ct", "unknown", "mr"],
    }


def test_training_batch() -> None:
    data = batch()
    image, target, args, conditions = PrepareTasks(SPACE)(data, "cpu")
    assert torch.equal(image, data["image"]) and args == () and conditions["return_modality"]
    assert conditions["tasks"].tolist() == [[0, 3], [1, -1], [1, -1]]
    assert conditions["modality"].tolist() == target.modality.tolist() == [0, -1, 1]
    assert isinstance(target, TaskTarget)
    assert target.annotated.tolist() == [[True, True], [True, False], [True, False]]
    label = data["label"][:, 0]
    assert torch.equal(target.masks[0], torch.stack([label[0] == BOX, label[0] == CUBE]))
    assert torch.equal(target.masks[1, 0], label[1] == BALL) and not target.masks[1:, 1].any()
    assert target.valid is not None and torch.equal(target.valid[:, 0], label != IGNORE)


def test_batch_as_published_has_a_null_task_more() -> None:
    conditions = PrepareTasks(SPACE, null_tasks=1, modality_loss=False)(batch(), "cpu")[3]
    assert conditions["tasks"].tolist() == [[0, 3, -1], [1, -1, -1], [1, -1, -1]]
    assert "return_modality" not in conditions


def test_evaluation_batch_and_its_labels() -> None:
    data = {key: value[1:2] for key, value in batch().items()}
    _, label, _, conditions = PrepareTasks(SPACE, training=False)(data, "cpu")
    assert torch.equal(label, data["label"]) and conditions.keys() == {"tasks", "modality"}
    unlabelled = {key: value for key, value in data.items() if key != "label"}
    assert PrepareTasks(SPACE)(unlabelled, "cpu")[1] is None

    logits = torch.tensor([[2.0, -1.0, 0.5, 3.0], [1.0, -2.0, 0.7, 3.5], [9.0, 9.0, 9.0, 9.0]]).view(3, 4, 1, 1)
    to_labels = TasksToLabelsd("pred", SPACE)
    assert to_labels({"pred": logits, "dataset": "one"})["pred"].flatten().tolist() == [BOX, 0, CUBE, CUBE]
    assert to_labels({"pred": logits, "dataset": "two"})["pred"].flatten().tolist() == [BALL, 0, BALL, BALL]


# ---------------------------------------------------------------------- a training
def write_case(folder: Path, name: str, dataset: str, rng: np.random.Generator) -> dict[str, str]:
    raw = np.zeros((18, 16, 14), np.uint8)
    if dataset == "one":
        raw[2:9, 3:10, 2:9], raw[11:16, 10:15, 8:13] = 1, 2
    else:
        raw[5:12, 4:11, 3:10] = 7
    image = (rng.normal(size=raw.shape) + 2.0 * (raw > 0)).astype(np.float32)
    for kind, array in (("image", image), ("label", raw)):
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{name}_{kind}.nii.gz")
    case = {"image": f"{name}_image.nii.gz", "label": f"{name}_label.nii.gz", "dataset": dataset}
    return case | ({"modality": "ct"} if dataset == "one" else {})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two data sets with an overlay ``universal``."""
    folder = tmp_path_factory.mktemp("universal")
    rng = np.random.default_rng(3)
    table = {
        "name": "universal",
        "modality": {"0": "image"},
        "label_space": LABELS,
        "training": [write_case(folder, f"t{i}", "one" if i < 3 else "two", rng) for i in range(4)],
        "validation": [write_case(folder, f"v{name}", name, rng) for name in ("one", "two")],
    }
    (folder / "datalist.json").write_text(json.dumps(table))
    settings = {"roi_size": [16, 16, 16], "batch_size": 2, "val_interval": 1, "cache": "plain", "num_workers": 0}
    new_bundle(
        network="hermes_resunet",
        json_list=folder / "datalist.json",
        output=folder / "bundle",
        device="cpu",
        overrides=settings,
    )
    (folder / "bundle" / "configs" / "universal.yaml").write_text(OVERLAY)
    return folder / "bundle"


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_universal_training(bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments: dict[str, Any] = {"output": run, "bundle": bundle, "device": "cpu", "overlays": ["universal"]}
    arguments["json_list"] = bundle.parent / "datalist.json"
    train(**arguments, epochs=2, overrides={"learning_rate": 0.02})
    table = rows(run)
    assert [row["iteration"] for row in table] == ["3", "6"]  # iterations per epoch as asked, not as the cases give
    assert float(table[1]["learning_rate"]) == pytest.approx(0.02)  # in the second epoch: after the warm-up
    state = load_file(run / "checkpoints" / "last.pt")
    assert state["network"]["encoder_priors.0.priors.task"].shape[0] == 7
    assert all(np.isfinite(float(row["loss"])) and 0 <= float(row["mean_dice"]) <= 1 for row in table)
    assert state["average"]["n_averaged"] == 6


@pytest.mark.slow
def test_two_processes(bundle: Path, tmp_path: Path) -> None:
    """Half the batch in each of two processes: every weight takes part in every step, and epochs are as long."""
    arguments = ["train", f"--bundle={bundle}", f"--json_list={bundle.parent / 'datalist.json'}", "--epochs=2"]
    arguments += ["--overlay=universal", f"--output={tmp_path / 'run'}", "--set=batch_size=1"]
    result = torchrun(tmp_path, *arguments)
    assert result.returncode == 0, result.stderr
    table = rows(tmp_path / "run")
    assert [row["iteration"] for row in table] == ["3", "6"]
    assert all(np.isfinite(float(row["loss"])) for row in table)
    assert not any(key.startswith("module.") for key in load_file(tmp_path / "run/checkpoints/last.pt")["network"])
