"""QTSeg's losses are MONAI's under these arguments: the original program's values and gradients."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from full_set import FULL_SET
from monai.losses import DiceCELoss, DiceLoss, FocalLoss
from torch import Tensor, nn

FIXTURES = FULL_SET / "qtseg"
pytestmark = pytest.mark.usefixtures("full_set")

SMOOTH: dict[str, Any] = {"smooth_nr": 1e-6, "smooth_dr": 1e-6}
SOFTMAX: dict[str, Any] = {"softmax": True, "to_onehot_y": True, **SMOOTH}
EQUAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce2": DiceCELoss(**SOFTMAX, lambda_dice=0.0),
    "ce3": DiceCELoss(**SOFTMAX, lambda_dice=0.0),
    "bdice2": DiceLoss(**SOFTMAX, include_background=False),
    "bdice2_smooth1": DiceLoss(**SOFTMAX | {"smooth_nr": 1.0, "smooth_dr": 1.0}, include_background=False),
    "bdice1_logits": DiceLoss(sigmoid=True, **SMOOTH),
    "bdice1_prob_range_no_sigmoid": DiceLoss(**SMOOTH),  # the original's guess that its input was a probability
    "cdice3": DiceCELoss(**SOFTMAX, lambda_ce=0.0, lambda_dice=3.0),  # a sum over three classes
    "bce1": nn.BCEWithLogitsLoss(),
    "focal1": FocalLoss(alpha=0.25, gamma=2.0),
    "focal1_a05_g15": FocalLoss(alpha=0.5, gamma=1.5),
    "default_binary": DiceCELoss(**SOFTMAX, include_background=False),
    "weighted_multiclass": DiceCELoss(**SOFTMAX, lambda_ce=0.5, lambda_dice=2.0 * 3.0),
}


def test_no_case_is_left_out() -> None:
    assert set(EQUAL) == set(json.loads((FIXTURES / "losses.json").read_text()))


@pytest.mark.parametrize("case", EQUAL)
def test_values_and_gradients_of_the_original(case: str) -> None:
    facts, arrays = json.loads((FIXTURES / "losses.json").read_text())[case], np.load(FIXTURES / "losses.npz")
    logits = torch.from_numpy(arrays[facts["logits"]]).requires_grad_()
    value = EQUAL[case](logits, torch.from_numpy(arrays[facts["target"]])[:, None].float())
    value.backward()
    assert value.item() == pytest.approx(facts["value"], rel=1e-5)
    torch.testing.assert_close(logits.grad, torch.from_numpy(arrays[f"grad/{case}"]), rtol=1e-3, atol=1e-7)
