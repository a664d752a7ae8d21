"""MaskedDiceCELoss: MONAI's loss where nothing is ignored, and nothing at all where something is."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss

from medseg.labels import IGNORE, LabelSpace
from medseg.losses import MaskedDiceCELoss

PLAIN = LabelSpace.from_table({"labels": {"background": 0, "a": 1, "b": 2}})
REGIONS = LabelSpace.from_table(
    {
        "mode": "sigmoid",
        "labels": {"background": 0, "a": 1, "b": 2},
        "regions": {"whole": ["a", "b"], "core": ["b"]},
    }
)


def sample(channels: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, channels, 5, 6, 7, generator=generator, dtype=dtype).requires_grad_()
    labels = torch.randint(0, 3, (2, 1, 5, 6, 7), generator=generator).to(torch.int16)
    return logits, labels


@pytest.mark.parametrize("background", [False, True])
def test_equals_monai_where_nothing_is_ignored(background: bool) -> None:
    logits, labels = sample(3)
    ours = MaskedDiceCELoss(PLAIN, include_background=background)(logits, labels)
    monai = DiceCELoss(include_background=background, to_onehot_y=True, softmax=True)(logits, labels)
    assert float(ours.detach()) == pytest.approx(float(monai.detach()), abs=1e-6)  # MONAI's one-hot is float32


def test_regions_equal_monai_on_region_masks() -> None:
    logits, labels = sample(2)
    masks = torch.cat([(labels > 0), (labels == 2)], 1).double()
    # MONAI's DiceCELoss takes a softmax cross-entropy for several channels, also with sigmoid.
    monai = DiceLoss(sigmoid=True)(logits, masks) + torch.nn.BCEWithLogitsLoss()(logits, masks)
    assert float(MaskedDiceCELoss(REGIONS)(logits, labels).detach()) == pytest.approx(float(monai.detach()), abs=1e-9)


@pytest.mark.parametrize(("space", "channels"), [(PLAIN, 3), (REGIONS, 2)])
def test_all_ignored(space: LabelSpace, channels: int) -> None:
    logits, labels = sample(channels)
    value = MaskedDiceCELoss(space)(logits, torch.full_like(labels, IGNORE))
    value.backward()
    assert float(value.detach()) == 0
    assert logits.grad is not None and (logits.grad == 0).all()


def test_one_case_of_a_batch_ignored() -> None:
    logits, labels = sample(3)
    labels[1] = IGNORE
    MaskedDiceCELoss(PLAIN)(logits, labels).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert (logits.grad[1] == 0).all() and (logits.grad[0] != 0).any()
