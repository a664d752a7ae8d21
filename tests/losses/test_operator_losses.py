"""Pearson, exponential logarithmic and summed losses: the original's numbers, values by hand, gradients, arguments."""

from __future__ import annotations

import math

import pytest
import torch
from full_set import FULL_SET
from monai.losses import DiceLoss
from original_numbers import LOSSES, check_loss, read_full
from torch import nn

from medseg.errors import ConfigError
from medseg.losses import ExponentialLogLoss, PearsonLoss, WeightedSum

FIXTURES = FULL_SET / "ibm"


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", ["loss_3d_a", "loss_2d_missing", "loss_3d_perfect"])
def test_numbers_of_the_original(case: str, loss: str) -> None:
    check_loss(read_full(FIXTURES / case), loss)


def sample() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 3, (2, 1, 4, 5), generator=generator)


def test_both_terms_by_hand() -> None:
    """Two voxels with the true probabilities 0.8 and 0.6; pseudocount 1; labels 1 : 3 in the data."""
    probabilities = torch.tensor([[[0.8, 0.4], [0.2, 0.6]]], dtype=torch.float64)
    target = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    loss = ExponentialLogLoss(label_frequencies=[1, 3])(probabilities, target)
    dice = [(2 * 0.8 + 1) / (1.2 + 1 + 1), (2 * 0.6 + 1) / (0.8 + 1 + 1)]
    first = sum((-math.log(d)) ** 0.3 for d in dice) / 2
    second = ((4 / 1) ** 0.5 * (-math.log(0.8)) ** 0.3 + (4 / 3) ** 0.5 * (-math.log(0.6)) ** 0.3) / 2
    assert loss.item() == pytest.approx(0.8 * first + 0.2 * second)


@pytest.mark.parametrize("loss", [PearsonLoss, ExponentialLogLoss])
def test_arguments_are_monais(loss: type) -> None:
    logits, labels = sample()
    one_hot = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1)
    expected = loss()(logits.softmax(1), one_hot)
    torch.testing.assert_close(loss(softmax=True, to_onehot_y=True)(logits, labels), expected)
    each = loss(softmax=True, reduction="none")(logits, one_hot)
    assert each.shape == (2, 3)
    torch.testing.assert_close(each.mean(), expected)
    torch.testing.assert_close(loss(softmax=True, reduction="sum")(logits, one_hot), each.sum())
    foreground = loss(include_background=False)(logits.softmax(1), one_hot)
    torch.testing.assert_close(foreground, loss()(logits.softmax(1)[:, 1:], one_hot[:, 1:]))


def test_sigmoid() -> None:
    logits, _ = sample()
    regions = (logits > 0.3).double()
    torch.testing.assert_close(PearsonLoss(sigmoid=True)(logits, regions), PearsonLoss()(logits.sigmoid(), regions))


@pytest.mark.parametrize(
    "loss",
    [
        PearsonLoss(softmax=True, to_onehot_y=True),
        ExponentialLogLoss(softmax=True, to_onehot_y=True, label_frequencies=[5, 2, 1]),
        WeightedSum(
            [PearsonLoss(softmax=True, to_onehot_y=True), DiceLoss(softmax=True, to_onehot_y=True)], [0.3, 2.0]
        ),
    ],
)
def test_gradients(loss: nn.Module) -> None:
    logits, labels = sample()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits.requires_grad_())


def test_limits() -> None:
    """0 for a perfect prediction, 1 for its opposite, 0.5 without a gradient for an absent channel; half precision."""
    target = torch.tensor([[[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    prediction = target.clone().requires_grad_()
    each = PearsonLoss(reduction="none")(prediction, target)
    torch.testing.assert_close(each, torch.tensor([[0.0, 0.5]]), atol=1e-6, rtol=0)
    each.sum().backward()
    assert prediction.grad is not None and not prediction.grad[0, 1].any()
    assert PearsonLoss()(1 - target[:, :1], target[:, :1]).item() == pytest.approx(1, abs=1e-6)
    logits, labels = sample()
    half = PearsonLoss(softmax=True, to_onehot_y=True)(logits.bfloat16(), labels)
    assert half.dtype == torch.float32


def test_weighted_sum() -> None:
    logits, labels = sample()
    first, second = PearsonLoss(softmax=True, to_onehot_y=True), ExponentialLogLoss(softmax=True, to_onehot_y=True)
    total = WeightedSum([first, second], [0.25, 3.0])(logits, labels)
    torch.testing.assert_close(total, 0.25 * first(logits, labels) + 3 * second(logits, labels))
    torch.testing.assert_close(WeightedSum([first, first])(logits, labels), 2 * first(logits, labels))


def test_what_does_not_fit_is_refused() -> None:
    logits, labels = sample()
    for make, words in (
        (lambda: PearsonLoss(sigmoid=True, softmax=True), "set one of them"),
        (lambda: PearsonLoss(reduction="meen"), "Did you mean 'mean'"),
        (lambda: PearsonLoss()(logits, labels), "to_onehot_y"),
        (lambda: PearsonLoss(include_background=False)(logits[:, :1], labels), "the only one"),
        (lambda: ExponentialLogLoss(sigmoid=True), "exclusive labels"),
        (lambda: ExponentialLogLoss(label_frequencies=[1, 0]), "positive"),
        (lambda: ExponentialLogLoss(label_frequencies=[1, 2])(logits, logits), "3 channels count"),
        (lambda: WeightedSum([PearsonLoss()], [1, 2]), "as many of each"),
    ):
        with pytest.raises(ConfigError, match=words):
            make()
