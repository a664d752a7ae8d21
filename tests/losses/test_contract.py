"""Every loss of the package takes the labels that training gives, and ignored voxels take no part in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import medseg.losses
from medseg.labels import IGNORE, LabelSpace
from medseg.losses import (
    DistilledLoss,
    ExponentialLogLoss,
    MaskedDiceCELoss,
    PearsonLoss,
    TaskLoss,
    TaskTarget,
    WeightedSum,
)

Judge = Callable[[Tensor, Tensor], Tensor]
SPACE = {"labels": {"background": 0, "a": 1, "b": 2}}
REGIONS = {
    "mode": "sigmoid",
    "labels": {"background": 0, "a": 1, "b": 2, "c": 3},
    "regions": {"whole": ["a", "b", "c"], "inside": ["b", "c"], "core": ["c"]},
}
EXCLUSIVE = {"softmax": True, "to_onehot_y": True}


def of_tasks(loss: Callable[[Tensor, TaskTarget], Tensor]) -> Judge:
    """Labels -> masks of the tasks 0, 1, 2 and the voxels that count, as ``PrepareTasks`` makes them."""

    def judge(logits: Tensor, labels: Tensor) -> Tensor:
        masks = torch.cat([labels == value for value in range(3)], 1)
        known = torch.ones(len(logits), 3, dtype=torch.bool)
        return loss(logits, TaskTarget(masks, known, torch.full((len(logits),), -1), labels != IGNORE))

    return judge


def distilled() -> Judge:
    loss, answers = DistilledLoss(TaskLoss()), torch.linspace(-2, 2, 6)
    return of_tasks(lambda x, target: loss((x, [x], answers[: x.shape[-1]].expand(x.shape).to(x)), target))


LOSSES: dict[str, dict[str, Judge]] = {
    "DistilledLoss": {"": distilled()},
    "ExponentialLogLoss": {
        "both terms": ExponentialLogLoss(**EXCLUSIVE, label_frequencies=[5, 2, 1]),
        "published": ExponentialLogLoss(**EXCLUSIVE, dice_weight=1, ce_weight=0, smooth_nr=0, smooth_dr=1e-7),
        "foreground": ExponentialLogLoss(**EXCLUSIVE, include_background=False),
    },
    "MaskedDiceCELoss": {
        "softmax": MaskedDiceCELoss(LabelSpace.from_table(SPACE)),
        "sigmoid": MaskedDiceCELoss(LabelSpace.from_table(REGIONS)),
    },
    "PearsonLoss": {"softmax": PearsonLoss(**EXCLUSIVE), "sigmoid": PearsonLoss(sigmoid=True, to_onehot_y=True)},
    "TaskLoss": {"": of_tasks(TaskLoss())},
    "WeightedSum": {"": WeightedSum([PearsonLoss(**EXCLUSIVE), ExponentialLogLoss(**EXCLUSIVE)], [0.5, 2.0])},
}
EACH = [
    pytest.param(judge, id=f"{name} {how}".strip()) for name, kinds in LOSSES.items() for how, judge in kinds.items()
]


def sample(dtype: torch.dtype, label_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits, and labels of which the last two planes are ignored."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, 3, (2, 1, 4, 5, 6), generator=generator).to(label_dtype)
    labels[..., 4:] = IGNORE
    return logits, labels


def value_and_gradient(judge: Judge, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = judge(leaf, labels)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def test_every_loss_is_held_to_the_contract() -> None:
    exported = {name for name in medseg.losses.__all__ if issubclass(getattr(medseg.losses, name), nn.Module)}
    assert exported == set(LOSSES)


@pytest.mark.parametrize("label_dtype", [torch.int16, torch.int64, torch.float32])
@pytest.mark.parametrize("judge", EACH)
def test_ignored_voxels_take_no_part(judge: Judge, label_dtype: torch.dtype) -> None:
    logits, labels = sample(torch.float64, label_dtype)
    value, gradient = value_and_gradient(judge, logits, labels)
    alone, expected = value_and_gradient(judge, logits[..., :4], labels[..., :4])
    torch.testing.assert_close(value, alone)
    torch.testing.assert_close(gradient[..., :4], expected)
    assert not gradient[..., 4:].any()


@pytest.mark.parametrize("judge", EACH)
def test_nothing_but_ignored_voxels(judge: Judge) -> None:
    logits, labels = sample(torch.float32, torch.int16)
    value, gradient = value_and_gradient(judge, logits, torch.full_like(labels, IGNORE))
    assert value.isfinite() and not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("judge", EACH)
def test_half_precision(judge: Judge, dtype: torch.dtype) -> None:
    """On a volume whose sums exceed float16's range."""
    logits, labels = sample(dtype, torch.float32)
    logits, labels = (x.repeat(1, 1, 24, 24, 1) for x in (logits, labels))
    value, gradient = value_and_gradient(judge, logits, labels)
    exact, expected = value_and_gradient(judge, logits.double(), labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(gradient.double(), expected, rtol=2e-2, atol=1e-6)
