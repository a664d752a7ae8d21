"""Scores of photographs: the original program's numbers, and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from full_set import FULL_SET

from medseg.labels import LabelSpace
from medseg.metrics import photo_scores
from medseg.transforms import AreaResized

FIXTURES = FULL_SET / "qtseg"
ONE = LabelSpace.from_table({"labels": {"background": 0, "lesion": 1}})
TWO = LabelSpace.from_table({"labels": {"background": 0, "a": 1, "b": 2}})
NAMES = {"mae": "mae", "acc": "accuracy", "dice": "dice", "iou": "iou"}


def percent(rows: list[dict[str, float]]) -> dict[str, float]:
    return {theirs: 100 * float(np.mean([row[ours] for row in rows])) for theirs, ours in NAMES.items()}


@pytest.mark.usefixtures("full_set")
def test_one_label_of_the_original() -> None:
    facts, arrays = json.loads((FIXTURES / "metrics.json").read_text()), np.load(FIXTURES / "metrics.npz")
    predictions = arrays["bin2/logits"].argmax(1)
    rows = [photo_scores(p, r, ONE)["lesion"] for p, r in zip(predictions, arrays["bin2/target"], strict=True)]
    for row, expected in zip(rows, facts["bin2"]["per_image"], strict=True):
        assert percent([row]) == pytest.approx(expected, rel=1e-5)
    assert percent(rows) == pytest.approx(facts["bin2"]["aggregate"], rel=1e-5)
    for name, threshold in (("bin1_logits", 0.0), ("bin1_probs", 0.5)):
        pairs = zip(arrays[f"{name}/pred"][:, 0] > threshold, arrays["bin1/target"], strict=True)
        assert percent([photo_scores(p, r, ONE)["lesion"] for p, r in pairs]) == pytest.approx(facts[name], rel=1e-5)


@pytest.mark.usefixtures("full_set")
def test_several_labels_of_the_original() -> None:
    facts, arrays = json.loads((FIXTURES / "metrics.json").read_text()), np.load(FIXTURES / "metrics.npz")
    pairs = zip(arrays["multi/logits"].argmax(1), arrays["multi/target"], strict=True)
    rows = [photo_scores(p, r, TWO) for p, r in pairs]
    for number, label in enumerate("ab", 1):
        expected = {name: facts["multi"]["aggregate"][f"{name}_{number}"] for name in NAMES}
        assert percent([row[label] for row in rows]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("case", ["orig0", "orig1", "orig2", "orig3"])
def test_source_resolution_of_the_original(case: str) -> None:
    """Padding is cut off, and labels go to the nearest pixel of the source."""
    facts, arrays = json.loads((FIXTURES / "metrics.json").read_text()), np.load(FIXTURES / "metrics.npz")
    logits, reference = torch.from_numpy(arrays[f"{case}/logits"]), arrays[f"{case}/target"][0]
    height, width = AreaResized("image", logits.shape[-1]).new_size(*reference.shape)
    labels = logits.argmax(1, keepdim=True).float()[:, :, :height, :width]
    prediction = F.interpolate(labels, reference.shape, mode="nearest")[0, 0].numpy()
    assert percent([photo_scores(prediction, reference, ONE)["lesion"]]) == pytest.approx(facts[case], rel=1e-5)


def test_by_hand() -> None:
    nothing, some = np.zeros((4, 5), int), np.zeros((4, 5), int)
    some[0, :3] = 1
    assert photo_scores(nothing, nothing, ONE)["lesion"] == {"dice": 1, "iou": 1, "accuracy": 1, "mae": 0}
    assert photo_scores(some, nothing, ONE)["lesion"]["dice"] == pytest.approx(2 / (2 + 3))
    row = photo_scores(some, np.roll(some, 1, axis=1), ONE)["lesion"]
    assert row == pytest.approx({"dice": 2 / 3, "iou": 0.5, "accuracy": 0.9, "mae": 0.1})
