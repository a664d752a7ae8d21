"""TaskLoss: the original's values and gradients, pairs that have no say, ignored voxels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from full_set import FULL_SET

from medseg.errors import ConfigError
from medseg.losses import TaskLoss, TaskTarget
from medseg.losses.tasks import masked_bce, masked_tversky, modality_loss

FIXTURES = FULL_SET / "hermes"


def sample(tasks: int = 3) -> tuple[torch.Tensor, TaskTarget]:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, tasks, 4, 5, 6, generator=generator, dtype=torch.float64).requires_grad_()
    masks = torch.rand(2, tasks, 4, 5, 6, generator=generator) > 0.6
    annotated = torch.tensor([[True] * tasks, [True] + [False] * (tasks - 1)])
    return logits, TaskTarget(masks, annotated, torch.tensor([0, -1]))


@pytest.mark.usefixtures("full_set")
def test_values_and_gradients_of_the_original() -> None:
    facts = json.loads((FIXTURES / "losses_a.json").read_text())
    arrays = {key: torch.from_numpy(value) for key, value in np.load(FIXTURES / "losses_a.npz").items()}
    logits, kind = arrays["logits"].requires_grad_(), arrays["modality_logits"].requires_grad_()
    tasks = arrays["tgt_idx"]
    annotated = (tasks >= 0) & (tasks != facts["tn"] - 1)  # the original's last task has no weight
    target = TaskTarget(arrays["label"], annotated, arrays["mod_idx"])
    terms = {
        "bce": masked_bce(logits, target.masks, annotated),
        "dice": masked_tversky(logits, target.masks, annotated),
        "modality": modality_loss(kind, target.modality),
    }
    for name, fact in (("bce", "bce"), ("dice", "dice_loss"), ("modality", "modality_ce")):
        (gradient,) = torch.autograd.grad(terms[name], kind if name == "modality" else logits)
        torch.testing.assert_close(gradient, arrays[f"grad_{name}"], rtol=1e-5, atol=1e-7)
        assert float(terms[name].detach()) == pytest.approx(facts[fact], abs=1e-5)
    total = TaskLoss()((logits, kind), target)
    assert float(total.detach()) == pytest.approx(facts["total"], abs=1e-5)


def test_gradients() -> None:
    logits, target = sample()
    assert torch.autograd.gradcheck(lambda x: TaskLoss()(x, target), (logits,))


def test_fixed_alpha_is_dice() -> None:
    logits, target = sample()
    every = torch.ones_like(target.annotated)
    p, y = logits.sigmoid(), target.masks.double()
    axes = (2, 3, 4)
    dice = 1 - 2 * (p * y).sum(axes) / (p.sum(axes) + y.sum(axes))
    value = masked_tversky(logits, target.masks, every, alpha=0.5)
    assert float(value.detach()) == pytest.approx(float(dice.mean().detach()), abs=1e-6)


def test_pairs_that_are_not_annotated_have_no_say() -> None:
    logits, target = sample()
    loss = TaskLoss()(logits, target)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[~target.annotated] == 0).all() and (logits.grad[target.annotated] != 0).all()
    noisy = logits.detach().clone()
    noisy[1, 1:] = torch.nan  # what null channels hold means nothing, and must not spoil the sum
    assert float(TaskLoss()(noisy, target)) == pytest.approx(float(loss.detach()))
    masked = target._replace(annotated=torch.zeros_like(target.annotated))
    assert float(TaskLoss()(logits, masked).detach()) == 0


def test_unknown_modalities_have_no_say() -> None:
    kind = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    one = torch.nn.functional.cross_entropy(kind[1:2], torch.tensor([2]))
    assert torch.equal(modality_loss(kind, torch.tensor([-1, 2, -1])), one)
    none = modality_loss(kind, torch.tensor([-1, -1, -1]))
    none.backward()
    assert float(none.detach()) == 0 and (kind.grad == 0).all()


def test_ignored_voxels_have_no_say() -> None:
    logits, target = sample()
    valid = torch.ones(2, 1, 4, 5, 6, dtype=torch.bool)
    assert float(TaskLoss()(logits, target._replace(valid=valid)).detach()) == pytest.approx(
        float(TaskLoss()(logits, target).detach())
    )
    valid[:, :, 2:] = False
    value = TaskLoss()(logits, target._replace(valid=valid))
    value.backward()
    assert logits.grad is not None and (logits.grad[:, :, 2:] == 0).all()
    cut = target._replace(masks=target.masks[:, :, :2])
    assert float(value.detach()) == pytest.approx(float(TaskLoss()(logits[:, :, :2], cut).detach()))


def test_absent_structure_is_taught_by_cross_entropy_alone() -> None:
    logits, target = sample(1)
    every = torch.ones_like(target.annotated)
    value = masked_tversky(logits, torch.zeros_like(target.masks), every)
    value.backward()
    assert float(value.detach()) == pytest.approx(1) and logits.grad is not None and (logits.grad == 0).all()
    assert (torch.autograd.grad(masked_bce(logits, torch.zeros_like(target.masks), every), logits)[0] > 0).all()


def test_heads() -> None:
    logits, target = sample()
    other = logits.detach().flip(2)
    one, two = (float(TaskLoss()(head, target).detach()) for head in (logits, other))
    assert float(TaskLoss()([logits, other], target).detach()) == pytest.approx((one + two) / 2)
    weighted = TaskLoss(head_weights=[1, 0.25])([logits, other], target)
    assert float(weighted.detach()) == pytest.approx(one + two / 4)
    with pytest.raises(ConfigError, match="1 head_weights for a network of 2"):
        TaskLoss(head_weights=[1])([logits, other], target)
