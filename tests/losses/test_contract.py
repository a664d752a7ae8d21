"""Every loss that ``medseg.losses`` exports is held to the contract, by being exported. Planted faults are noticed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import loss_contract as contract
import pytest
import torch
import torch.nn.functional as F
from loss_contract import Judge
from torch import Tensor, nn

import medseg.losses
from medseg.labels import IGNORE, LabelSpace
from medseg.losses import DistilledLoss, ExponentialLogLoss, MaskedDiceCELoss, PearsonLoss, TaskLoss, TaskTarget

SOFTMAX = LabelSpace.from_table({"labels": {"background": 0, "a": 1, "b": 2}})
SIGMOID = LabelSpace.from_table(
    {
        "mode": "sigmoid",
        "labels": {"background": 0, "a": 1, "b": 2, "c": 3},
        "regions": {"whole": ["a", "b", "c"], "inside": ["b", "c"], "core": ["c"]},
    }
)
# Values for what a loss cannot do without, by the names that all losses of the package use.
GIVEN: dict[str, Callable[[], Any]] = {
    "label_space": lambda: SOFTMAX,
    "loss": TaskLoss,
    "losses": lambda: [PearsonLoss(softmax=True, to_onehot_y=True), MaskedDiceCELoss(SOFTMAX)],
    "softmax": lambda: True,
    "to_onehot_y": lambda: True,
}
# Settings beside the defaults.
MORE: dict[str, nn.Module] = {
    "ExponentialLogLoss of frequencies": ExponentialLogLoss(
        softmax=True, to_onehot_y=True, label_frequencies=[5, 2, 1]
    ),
    "ExponentialLogLoss as published": ExponentialLogLoss(
        softmax=True, to_onehot_y=True, dice_weight=1, ce_weight=0, smooth_nr=0, smooth_dr=1e-7
    ),
    "ExponentialLogLoss of the foreground": ExponentialLogLoss(
        softmax=True, to_onehot_y=True, include_background=False
    ),
    "MaskedDiceCELoss of regions": MaskedDiceCELoss(SIGMOID),
    "PearsonLoss of sigmoids": PearsonLoss(sigmoid=True, to_onehot_y=True),
}


def parameters(cls: type[nn.Module]) -> set[str]:
    """Names of the constructor's parameters, and of its bases' where it hands them on."""
    names: set[str] = set()
    for base in cls.__mro__:
        signature = inspect.signature(base.__init__)  # type: ignore[misc]
        names |= set(signature.parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            return names
    return names


def judge_of(loss: nn.Module) -> Judge:
    """Logits and labels to the loss; for losses of tasks, labels become the masks that ``PrepareTasks`` makes."""
    if get_type_hints(loss.forward).get("target") is not TaskTarget:
        return loss

    def judge(logits: Tensor, labels: Tensor) -> Tensor:
        masks = torch.cat([labels == value for value in range(3)], 1)
        known = torch.ones(len(logits), 3, dtype=torch.bool)
        target = TaskTarget(masks, known, torch.full((len(logits),), -1), labels != IGNORE)
        if isinstance(loss, DistilledLoss):
            answers = labels.to(logits).cos().expand(logits.shape)  # of an earlier network, voxel by voxel
            return loss((logits, [logits], answers), target)
        return loss(logits, target)

    return judge


def cases() -> Iterator[Any]:
    for name in medseg.losses.__all__:
        cls = getattr(medseg.losses, name)
        if issubclass(cls, nn.Module):
            given = {key: value() for key, value in GIVEN.items() if key in parameters(cls)}
            yield pytest.param(judge_of(cls(**given)), id=name)
    for name, loss in MORE.items():
        yield pytest.param(judge_of(loss), id=name)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("judge", cases())
def test_contract(judge: Judge, check: contract.Check) -> None:
    assert list(check(judge)) == []


# ---------------------------------------------------------------------- planted faults
def sound(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over what is not ignored; the losses below break the contract in one place each."""
    logits, target = logits.float() if logits.dtype.itemsize < 4 else logits, labels[:, 0].long()
    sums = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
    return sums / (target != IGNORE).sum().clamp(min=1)


def ignored_as_background(logits: Tensor, labels: Tensor) -> Tensor:
    return sound(logits, labels.clamp(min=0) if labels.dtype != torch.uint8 else labels)


def ignored_in_the_mean(logits: Tensor, labels: Tensor) -> Tensor:
    return sound(logits, labels) * (labels != IGNORE).float().mean()


def first_plane_counts(logits: Tensor, labels: Tensor) -> Tensor:
    labels = labels.clone()
    labels[:, :, :1][labels[:, :, :1] == IGNORE] = 0
    return sound(logits, labels)


def nan_of_int16(logits: Tensor, labels: Tensor) -> Tensor:
    return sound(logits, labels) + ((logits * 0).sum().sqrt() if labels.dtype == torch.int16 else 0.0)


def refuses_int16(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels[:, 0].long() if labels.dtype.is_floating_point else labels[:, 0])


def no_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    return sound(logits, labels) * 0.0


def nan_of_nothing(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels[:, 0].long(), ignore_index=IGNORE)


def sums_in_half(logits: Tensor, labels: Tensor) -> Tensor:
    return sound(logits, labels) + 0 * (logits.exp() * (labels != IGNORE)).sum()


FAULTS: list[tuple[contract.Check, list[Judge]]] = [
    (contract.label_types, [nan_of_int16, refuses_int16, no_gradient]),
    (contract.ignored_anywhere, [ignored_as_background, ignored_in_the_mean, first_plane_counts]),
    (contract.all_ignored, [ignored_as_background, nan_of_nothing]),
    (contract.half_precision, [sums_in_half]),
]


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_a_sound_loss_keeps_the_contract(check: contract.Check) -> None:
    assert list(check(sound)) == []


@pytest.mark.parametrize(("check", "judge"), [(check, judge) for check, judges in FAULTS for judge in judges])
def test_a_planted_fault_is_noticed(check: contract.Check, judge: Judge) -> None:
    assert list(check(judge))
