"""The validation metric as an engine sees it, and the run's log."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose
from torch import nn

from medseg.data import make_dataset, make_loader
from medseg.engines import CaseScores, PhotoScores, ValidationLoss
from medseg.labels import LabelSpace
from medseg.transforms import LogitsToLabelsd

SPACE = LabelSpace.from_table({"labels": {"background": 0, "a": 1, "b": 2}})


class OneHot(nn.Module):
    """Logits whose argmax is the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.as_tensor(x)[:, 0].long(), 3).movedim(-1, 1).float()


def evaluate(
    tmp_path: Path, images: list[torch.Tensor], labels: list[torch.Tensor], scores: type[CaseScores] = CaseScores
) -> Any:
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    data = [
        {"image": image.float(), "label": MetaTensor(label, affine=affine), "case_id": f"c{i}"}
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=make_loader(make_dataset(data, Compose([]), kind="plain")),
        network=OneHot(),
        postprocessing=LogitsToLabelsd("pred", SPACE),
        key_val_metric={"mean_dice": scores(SPACE, output_dir=tmp_path, facts={"space": "model"})},
    )
    evaluator.run()
    return evaluator


def test_scores_and_files(tmp_path: Path) -> None:
    label = torch.zeros(1, 6, 6, 6, dtype=torch.int16)
    label[:, 1:4, 1:4, 1:4] = 1
    half = label.clone()
    half[:, 3] = 0
    evaluator = evaluate(tmp_path, [label, half], [label, label])
    expected = (1 + 2 * 18 / (18 + 27)) / 2
    assert evaluator.state.metrics["mean_dice"] == pytest.approx(expected)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["mean_dice"] == pytest.approx(expected) and content["space"] == "model"
    shared, total = 27 + 18, 54 + 45
    assert content["pooled"]["a"] == pytest.approx({"dice": 2 * shared / total, "iou": shared / (total - shared)})
    assert content["pooled"]["b"] == {"dice": None, "iou": None}
    assert content["labels"]["b"]["dice"] == {"mean": None, "cases": 0, "undefined": 2}
    with (tmp_path / "metrics_per_case.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["label"]) for row in rows] == [("c0", "a"), ("c0", "b"), ("c1", "a"), ("c1", "b")]
    assert rows[1]["dice"] == "" and float(rows[2]["dice"]) == pytest.approx(0.8)


def test_no_reference_holds_any_label(tmp_path: Path) -> None:
    empty = torch.zeros(1, 4, 4, 4, dtype=torch.int16)
    evaluator = evaluate(tmp_path, [empty], [empty])
    assert math.isnan(evaluator.state.metrics["mean_dice"])
    assert json.loads((tmp_path / "metrics.json").read_text())["mean_dice"] is None


def test_scores_of_photographs(tmp_path: Path) -> None:
    empty = torch.zeros(1, 4, 4, dtype=torch.int16)
    full = torch.ones_like(empty)
    evaluator = evaluate(tmp_path, [empty, full], [empty, empty], PhotoScores)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert evaluator.state.metrics["mean_dice"] == pytest.approx(((1 + 2 / 18) / 2 + 1) / 2)
    assert content["labels"]["a"]["accuracy"]["mean"] == pytest.approx((1 + 1 / 17) / 2) and content["pooled"] == {}


def test_the_validation_loss_is_that_of_the_logits(tmp_path: Path) -> None:
    loss = nn.CrossEntropyLoss()
    images = [torch.randint(0, 3, (1, 4, 4, 4), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    labels = [image.roll(1, 1).to(torch.int16) for image in images]
    data = [
        {"image": a.float(), "label": b, "case_id": f"c{i}"}
        for i, (a, b) in enumerate(zip(images, labels, strict=True))
    ]
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=make_loader(make_dataset(data, Compose([]), kind="plain")),
        network=OneHot(),
        postprocessing=LogitsToLabelsd("pred", SPACE),
        key_val_metric={"loss": ValidationLoss(lambda p, y: loss(p, y[:, 0].long()))},  # type: ignore[arg-type]
        additional_metrics={"mean_dice": CaseScores(SPACE)},
    )
    evaluator.run()
    expected = [float(loss(OneHot()(a[None].float()), b.long())) for a, b in zip(images, labels, strict=True)]
    assert evaluator.state.metrics["loss"] == pytest.approx(sum(expected) / 3)
    assert evaluator.state.best_metric == evaluator.state.metrics["loss"]
    assert 0 < evaluator.state.metrics["mean_dice"] < 1
