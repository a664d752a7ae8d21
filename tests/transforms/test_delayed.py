"""Augmentation of whole batches: the same numbers and voxels as the transforms of single cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from augmented_cases import case, steps_of
from monai import transforms as mt
from monai.transforms import Compose, Randomizable

from medseg.data import make_dataset, make_loader
from medseg.engines import PrepareAugmented
from medseg.transforms.delayed import Delayed, change_batch
from medseg.transforms.delayed_forms import delayed
from medseg.transforms.placed import placed
from medseg.transforms.recipes import DRAWN


def batches(
    steps: list[Any], roi: Sequence[int], workers: int = 0, seed: int = 3, kind: str = "plain"
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Six batches of two, as the trainer gets them."""
    dataset = make_dataset([case(roi, n) for n in range(4)], Compose(steps), kind=kind, seed=seed, repeats=3)
    loader = make_loader(dataset, batch_size=2, shuffle=True, num_workers=workers)
    return [PrepareAugmented(dataset)(batch, torch.device("cpu")) for batch in loader]


@pytest.mark.parametrize("likely", [None, 1.0], ids=["as stated", "always"])
@pytest.mark.parametrize("roi", [(12, 10, 8), (16, 12), (12, 10, 1)], ids=["volume", "2D image", "slice"])
@pytest.mark.parametrize("name", ["light", "nnunet"])
def test_batches_are_those_of_single_cases(name: str, roi: tuple[int, ...], likely: float | None) -> None:
    """Every voxel of every batch, whatever is drawn; what nothing changed stays bit by bit."""
    now = [step for step in steps_of(name, roi, likely) if not isinstance(step, mt.RandGaussianNoised)]
    later = delayed(now)
    assert sum(isinstance(step, Delayed) for step in later) >= 6
    same = 0
    for (image, label), (image_, label_) in zip(batches(now, roi), batches(later, roi), strict=True):
        assert image.dtype == image_.dtype and label.dtype == label_.dtype and image.shape == image_.shape
        assert (image - image_).abs().max() < 1e-5 * image.abs().max()
        assert (label != label_).float().mean() < 0.002  # on the middle between two voxels
        same += sum(torch.equal(one, other) for one, other in zip(image, image_, strict=True))
    assert same or likely


@pytest.mark.parametrize("name", ["light", "nnunet"])
def test_noise_is_as_likely_and_as_strong(name: str) -> None:
    """The deviation is the very number that the transform draws for a case; the voxels are normal and a case's own."""
    steps = steps_of(name, (6, 6, 6))
    noise = next(step for step in steps if isinstance(step, mt.RandGaussianNoised))
    (form,) = delayed([noise])
    assert isinstance(form, Delayed)
    flat = torch.ones(2, 24, 24, 24)
    drawn, expected = [], []
    for seed in range(300):
        drawn.append(form.set_random_state(seed)({"image": flat})[DRAWN])
        changed = noise.set_random_state(seed)({"image": flat})["image"]
        expected.append(float((changed - flat).std()))
    numbers = torch.stack(drawn)
    image, _ = change_batch([form], flat.expand(300, *flat.shape), torch.zeros(300, 1, 24, 24, 24), numbers)
    found = (image - 1).std((1, 2, 3, 4))
    assert torch.allclose(found, torch.tensor(expected), rtol=0.02, atol=0) and (found > 0).sum() > 20
    some = (image[found > 0] - 1) / numbers[found > 0, 2].view(-1, 1, 1, 1, 1)
    assert torch.quantile(some[:9].flatten(), torch.tensor([0.16, 0.5, 0.84])) == pytest.approx(
        [-0.994, 0, 0.994], abs=0.02
    )
    assert some.flatten(1).corrcoef().fill_diagonal_(0).abs().max() < 0.04


def test_numbers_depend_on_seed_epoch_and_case_and_not_on_workers() -> None:
    one, again, other = (batches(delayed(steps_of("nnunet", (8, 6))), (8, 6), *how) for how in ((0,), (2,), (0, 4)))
    assert all(torch.equal(a, b) for pair in zip(one, again, strict=True) for a, b in zip(*pair, strict=True))
    assert not any(torch.equal(a, b) for (a, _), (b, _) in zip(one, other, strict=True))


def test_what_has_no_form_is_made_per_case_in_its_place() -> None:
    steps = [*steps_of("light", (6, 6, 6))]
    flip = next(n for n, step in enumerate(steps) if isinstance(step, mt.RandFlipd))
    bias = mt.RandBiasFieldd("image", prob=1)
    found = delayed([*steps[: flip + 1], bias, *steps[flip + 1 :]])
    assert found[: flip + 2] == [*steps[: flip + 1], bias]
    assert [type(step.step) for step in found if isinstance(step, Delayed)] == [
        type(step) for step in steps[flip + 1 :] if isinstance(step, Randomizable)
    ]


@pytest.mark.parametrize("name", ["light", "nnunet"])
def test_patches_that_are_cut_on_the_device_are_the_same(name: str) -> None:
    roi = (12, 10, 8)
    cut, moved = (batches(delayed(steps_of(name, roi)), roi, kind=kind) for kind in ("device", "cache"))
    assert all(torch.equal(a, b) for pair in zip(cut, moved, strict=True) for a, b in zip(*pair, strict=True))


def test_no_patch_is_only_placed_where_the_loader_changes_it() -> None:
    steps = steps_of("light", (6, 6, 6))
    chain = Compose([*steps[:3], *delayed(steps[3:])])
    assert placed(chain) is chain and placed(Compose(steps[:2])).transforms == tuple(steps[:2])
