"""Random faults of the label map of an earlier stage, and the label map that goes with image and label."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from scipy import ndimage

from medseg.labels import LabelSpace
from medseg.transforms import RandMorphologyd, RandRemoveComponentd, RandRotateScaled, augmentation, patch_augmentation
from medseg.transforms.label_changes import _CHANGES
from medseg.transforms.previous import PreviousChannelsd

_SPACE = LabelSpace.from_table({"labels": {"background": 0, "organ": 1, "lesion": 2}})


def _map(*boxes: tuple[int, slice]) -> torch.Tensor:
    labels = torch.zeros(1, 20, 20, 20, dtype=torch.int16)
    for value, span in boxes:
        labels[:, span, span, span] = value
    return labels


def test_morphology_is_that_of_a_ball() -> None:
    mask = np.zeros((16, 15, 14), bool)
    mask[4:10, 3:11, 5:9] = True
    mask[11, 11, 10] = True
    reach = np.indices((7, 7, 7)) - 3
    ball = (reach**2).sum(0) <= 2.5**2
    operations = (ndimage.binary_dilation, ndimage.binary_erosion, ndimage.binary_closing, ndimage.binary_opening)
    for change, operation in zip(_CHANGES, operations, strict=True):
        np.testing.assert_array_equal(change(mask, 2.5), operation(mask, ball))
    assert not any(change(mask & False, 2.5).any() for change in _CHANGES)


def test_how_often_labels_are_changed_and_by_what() -> None:
    labels = _map((1, slice(4, 10)), (2, slice(15, 17)))
    step = RandMorphologyd("previous", 0.4, (1.0, 3.0))
    step.set_random_state(0)
    sizes = []  # of the larger label
    for _ in range(600):
        found = step({"previous": labels})["previous"]
        assert found.dtype == torch.int16 and found.shape == labels.shape
        if step._do_transform:
            sizes.append(int((found == 1).sum()))
    assert 0.34 < len(sizes) / 600 < 0.46  # three standard errors, as below
    grown, as_before = (np.mean([np.sign(size - 6**3) == sign for size in sizes]) for sign in (1, 0))
    assert 0.16 < grown < 0.34 and 0.16 < as_before < 0.34  # what is closed is as before; the others are smaller
    radii = {size for size in sizes if size > 6**3}
    assert len(radii) > 5 and max(radii) < 12**3  # by balls of many radii up to 3


def test_a_label_that_another_grew_over_is_gone() -> None:
    step = RandMorphologyd("previous", 1.0, (3.0, 3.0))
    step.set_random_state(0)
    labels = _map((1, slice(4, 10)), (2, slice(10, 11)))
    found = [step({"previous": labels})["previous"] for _ in range(20)]
    assert any(bool((one == 1).any()) and not (one == 2).any() for one in found)


def test_one_small_component_of_each_label_is_removed() -> None:
    labels = _map((1, slice(0, 12)), (2, slice(13, 16)))  # 22 % and less than 1 % of the patch
    labels[0, 18, 18, 18] = labels[0, 18, 18, 0] = 1
    step = RandRemoveComponentd("previous", 0.2, 0.15)
    step.set_random_state(0)
    found = [step({"previous": labels})["previous"] for _ in range(300)]
    changed = [one for one in found if not torch.equal(one, labels)]
    assert 0.12 < len(changed) / 300 < 0.28
    for one in changed:
        assert not (one == 2).any() and int((one == 1).sum()) == 12**3 + 1
    assert 0.3 < np.mean([bool(one[0, 18, 18, 18]) for one in changed]) < 0.7


def test_the_label_map_moves_with_the_label() -> None:
    labels = _map((1, slice(2, 9)), (2, slice(12, 17)))
    keys = ["image", "label", "previous"]
    turns: dict[str, Any] = {"rotation": 0.5, "rotation_in_plane": 0.5, "rotation_elongated": 0.5}
    spatial = RandRotateScaled(keys, (12, 12, 12), **turns, scaling=(0.7, 1.4), rotation_prob=1, scaling_prob=1)
    chains = [
        augmentation((12, 12, 12), label_space=_SPACE, intensity=(), flip_axes=[0], affine_prob=1.0, keys=keys),
        patch_augmentation(label_space=_SPACE, spatial=spatial, mirror_axes=[0, 1], foreground=1.0, keys=keys),
    ]
    for steps in chains:
        chain = Compose(steps).set_random_state(0)
        for _ in range(3):
            (one,) = chain({"image": labels.float(), "label": labels, "previous": labels, "case_id": "a"})
            assert torch.equal(one["label"], one["previous"]) and one["label"].any()
            channels = PreviousChannelsd(2)(one)
            assert "previous" not in channels and channels["image"].shape == (3, 12, 12, 12)
            assert torch.equal(channels["image"][1:], torch.cat([one["label"] == 1, one["label"] == 2]).float())
