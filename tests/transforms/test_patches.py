"""nnU-Net's augmentation: how often, how far, on what, and the same again for the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.transforms import Compose

from medseg.data import make_loader
from medseg.data.dataset import SeededDataset
from medseg.labels import LabelSpace
from medseg.transforms import (
    RandBlurd,
    RandContrastd,
    RandForegroundCropd,
    RandGammad,
    RandLowResolutiond,
    RandRotateScaled,
    patch_augmentation,
)

SPACE = LabelSpace.from_table({"labels": {"background": 0, "large": 1, "small": 2}})
ANGLES = {"rotation": 0.5, "rotation_in_plane": 3.0, "rotation_elongated": 0.25}
DRAWS = 400


def rotate(roi: tuple[int, ...], **changed: Any) -> RandRotateScaled:
    options: dict[str, Any] = {**ANGLES, "scaling": (0.7, 1.4), "rotation_prob": 0.2, "scaling_prob": 0.2, **changed}
    return RandRotateScaled(["image", "label"], roi, **options)


IMAGE = torch.arange(2 * 8 * 6 * 4, dtype=torch.float32).reshape(2, 8, 6, 4) % 37
LABEL = (IMAGE[:1] > 20).short()
CHANGES = {
    "blur": (lambda: RandBlurd("image", 0.3, (0.5, 1.0), 0.5), 0.3 * 0.75),
    "contrast": (lambda: RandContrastd("image", 0.3, (0.75, 1.25)), 0.3),
    "low resolution": (lambda: RandLowResolutiond("image", 0.3, (0.5, 0.8), 0.5, coarse_axis=2), 0.3 * 0.75),
    "gamma": (lambda: RandGammad("image", 0.3, (0.7, 1.5)), 0.3),
    "inverted gamma": (lambda: RandGammad("image", 0.3, (0.7, 1.5), invert=True), 0.3),
    "rotation and scaling": (lambda: rotate((4, 4, 4)), 1 - 0.8 * 0.8),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_as_likely_as_said_and_else_the_identity(name: str) -> None:
    make, chance = CHANGES[name]
    change = make()
    data = {"image": IMAGE.clone(), "label": LABEL.clone()}
    plain = data if not isinstance(change, RandRotateScaled) else {k: v[:, 2:6, 1:5, 0:4] for k, v in data.items()}
    results = [change.set_random_state(seed)(data) for seed in range(DRAWS)]
    changed = [not torch.equal(result["image"], plain["image"]) for result in results]
    assert sum(changed) == pytest.approx(DRAWS * chance, abs=4 * (DRAWS * chance * (1 - chance)) ** 0.5)
    assert torch.equal(data["image"], IMAGE) and torch.equal(data["label"], LABEL)  # a cache holds these
    again = make().set_random_state(7)(data)["image"]
    assert torch.equal(again, results[7]["image"])
    if not isinstance(change, RandRotateScaled):
        assert all(result["label"] is data["label"] for result in results)
    assert all(torch.isfinite(result["image"]).all() for result in results)


def test_values_lie_in_their_ranges() -> None:
    drawn = [RandGammad("image", 1, (0.7, 1.5)).set_random_state(n)._around_one((0.7, 1.5)) for n in range(DRAWS)]
    assert 0.7 <= min(drawn) < 0.72 and 1.45 < max(drawn) <= 1.5
    assert np.mean(np.array(drawn) < 1) == pytest.approx(0.5, abs=0.1)  # not 3 / 8, as if uniform
    changed = RandGammad("image", 1, (0.7, 0.7))(dict(image=IMAGE))["image"]
    assert torch.allclose(changed.mean((1, 2, 3)), IMAGE.mean((1, 2, 3)), atol=1e-3)
    contrast = RandContrastd("image", 1, (1.25, 1.25))(dict(image=IMAGE))["image"]
    assert contrast.max() == IMAGE.max() and contrast.min() == IMAGE.min()
    coarse = RandLowResolutiond("image", 1, (0.5, 0.5), coarse_axis=2)(
        dict(image=IMAGE[:1, :1, :1] + torch.zeros(1, 8, 6, 1))
    )
    assert torch.equal(coarse["image"], IMAGE[:1, :1, :1] + torch.zeros(1, 8, 6, 1))  # differs along that axis alone


def test_angles_follow_the_patch() -> None:
    cases = {
        ((8, 8, 8), None): [0.5] * 3,
        ((8, 8, 2), 2): [0.0, 0.0, 3.0],
        ((8, 8), None): [3.0],
        ((8, 20), None): [0.25],
    }  # fmt: skip
    assert {key: rotate(key[0], coarse_axis=key[1]).angles for key in cases} == cases
    assert rotate((8, 8, 2), coarse_axis=2).margin[2] == 0  # its slices stay
    assert rotate((128,) * 3, rotation=np.pi / 6).margin == [39] * 3  # 206 voxels, where nnU-Net takes 205
    for seed in range(50):
        drawn = rotate((8, 8, 2), coarse_axis=2, rotation_prob=1.0, scaling_prob=1.0).set_random_state(seed)
        drawn.randomize()
        angles, factors = drawn.drawn or ([], [])
        assert (
            angles[:2] == [0, 0] and abs(angles[2]) <= 3 and factors[2] == 1 and 0.7 <= factors[0] == factors[1] <= 1.4
        )


def case() -> dict[str, Any]:
    """Half of the volume is one label, one voxel the other."""
    label = torch.zeros(1, 12, 12, 12, dtype=torch.int16)
    label[:, :6], label[0, 11, 11, 11] = 1, 2
    return {"image": label.float() + 1, "label": label, "case_id": "c"}


def test_the_share_of_each_batch_is_around_a_label_whatever_its_size() -> None:
    steps = patch_augmentation(label_space=SPACE, spatial=rotate((2, 2, 2), rotation_prob=0, scaling_prob=0))
    dataset = SeededDataset(Dataset([case()], Compose(steps)), seed=0, repeats=240)
    loader = make_loader(dataset, batch_size=3, shuffle=True)
    assert dataset.foreground == 0.33
    last = [batch["label"][-1] for batch in loader]
    assert all((label > 0).any() for label in last)
    assert np.mean([bool((label == 2).any()) for label in last]) == pytest.approx(0.5, abs=0.15)
    first = [batch["label"][0] for batch in loader]
    assert np.mean([bool((label == 2).any()) for label in first]) < 0.1
    loader.sampler.skip = 3  # as a run that resumes: the rest of the epoch is the same
    resumed = [batch["label"] for batch in loader]
    loader.sampler.skip = 0
    assert all(torch.equal(a, b["label"]) for a, b in zip(resumed, list(loader)[1:], strict=True))


def test_a_patch_beyond_the_border_is_filled_with_zeros() -> None:
    crop = RandForegroundCropd(["image", "label"], (6, 6, 6), share=1.0, margin=(4, 4, 4))
    indices = [torch.arange(3), torch.tensor([]), torch.tensor([12**3 - 1])]
    (patch,) = crop({**case(), "label_cls_indices": indices})
    assert patch["image"].shape == (1, 14, 14, 14)
    assert patch["label"][0, 9, 9, 9] == 2 and not patch["image"][0, 10:].any()
    (empty,) = crop({**case(), "label_cls_indices": [torch.arange(3), torch.tensor([]), torch.tensor([])]})
    assert empty["image"].shape == (1, 14, 14, 14)
