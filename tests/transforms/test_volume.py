"""The recipe of whole volumes: normalisation and augmentation as published, order of axes, random streams."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch
from full_set import FULL_SET
from monai.data import MetaTensor
from monai.transforms import Compose

from medseg.data import make_dataset
from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.transforms import NormalizeChannelsd, RandNearestAffined, volume_augmentation, volume_preprocessing
from medseg.transforms.nearest_affine import AffineDraw, draw_affine, warp_nearest

FIXTURES = FULL_SET / "ibm"
PUBLISHED = {"rotate": (30, 0, 0), "shift": (0.2,) * 3, "zoom": (0.8, 1.2), "flip": (False,) * 3, "prob": 0.8}


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize(
    ("name", "scheme"),
    [("mask0", {"nonzero": True}), ("nomask", {}), ("mask0_clip_10_150", {"nonzero": True, "lower": 10, "upper": 150})],
)
def test_normalisation_is_the_published_one(name, scheme):
    golden = np.load(FIXTURES / "normalize.npz")
    image = MetaTensor(torch.from_numpy(golden["x"]))
    found = NormalizeChannelsd("image", [{"kind": "case", **scheme}])({"image": image})["image"]
    np.testing.assert_allclose(found.numpy(), golden[name], atol=2e-6)


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("seed", [5, 8])
def test_augmentation_is_the_published_one(seed):
    golden, facts = np.load(FIXTURES / f"augment_seed{seed}.npz"), FIXTURES / f"augment_seed{seed}.json"
    assert json.loads(facts.read_text())["kwargs"]["zoom_range"] == [0.8, 1.2]
    generator = np.random.default_rng(seed)
    for number in range(4):
        draw = draw_affine(generator, golden["x"].shape[1:], **PUBLISHED)
        for key in ("x", "y"):
            volume = torch.from_numpy(golden[key])
            found = volume if draw is None else warp_nearest(volume, draw)
            np.testing.assert_array_equal(found.numpy(), golden[f"{key}{number}"])


def test_a_draw_by_hand():
    """A quarter turn about D moves (H, W); zoom 2 about the centre halves an object; flips come last."""
    volume = torch.zeros(1, 4, 6, 6)
    volume[0, 1, 2, 4] = 1
    nothing = {"shift": (0, 0, 0), "zoom": (1, 1), "flip": (False, False, False), "prob": 1.0}
    still = draw_affine(np.random.default_rng(0), (4, 6, 6), rotate=(0, 0, 0), **nothing)
    assert torch.equal(warp_nearest(volume, still), volume)
    mirrored = AffineDraw(still.matrix, (2,))
    assert torch.equal(warp_nearest(volume, mirrored), volume.flip(3))
    assert draw_affine(np.random.default_rng(0), (4, 6, 6), rotate=(30, 0, 0), **{**nothing, "prob": 0.0}) is None
    turned = draw_affine(np.random.default_rng(0), (4, 6, 6), rotate=(90, 0, 0), **nothing)
    np.testing.assert_allclose(turned.matrix[2], [0, 0, 1, 0], atol=1e-12)  # z, which is D, stays
    assert np.linalg.det(turned.matrix[:3, :3]) == pytest.approx(1)


def test_every_item_has_its_own_numbers_whatever_the_workers():
    case = {"image": torch.rand(2, 8, 8, 8), "label": torch.randint(0, 3, (1, 8, 8, 8)), "case_id": "a"}
    transform = Compose(volume_augmentation(prob=1.0))
    items = make_dataset([case, case], transform, kind="plain", seed=3)
    first, second, again = items[0], items[1], items[0]
    assert not torch.equal(first["image"], second["image"])
    assert torch.equal(first["image"], again["image"]) and torch.equal(first["label"], again["label"])
    items.epoch.fill_(1)
    assert not torch.equal(items[0]["image"], first["image"])
    assert first["label"].dtype == torch.int16 and set(first["label"].unique().tolist()) <= {0, 1, 2}
    image = (case["label"] + 1).float()  # image and label move together
    moved = transform({**case, "image": image})
    outside = moved["image"] == 0
    assert torch.equal(moved["image"][~outside] - 1, moved["label"][~outside].float())


def test_volumes_are_read_as_published(tmp_path):
    """For a file of BraTS (axes L, P, S) the array is (z, y, x), at the nearest voxel; labels on the same grid."""
    values = np.random.default_rng(0).integers(0, 4, (6, 8, 10)).astype(np.int16)
    affine = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float)
    for name in ("image", "label"):
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
    item = {name: str(tmp_path / f"{name}.nii.gz") for name in ("image", "label")}
    space = LabelSpace.from_table({"0": "background", "1": "a", "2": "b", "3": "c"})
    settings = {"normalization": [{"kind": "fixed"}], "label_space": space}
    full = Compose(volume_preprocessing(["image", "label"], **settings))(item)
    np.testing.assert_array_equal(full["image"][0].numpy(), values.T)
    half = Compose(volume_preprocessing(["image", "label"], scale=0.5, **settings))(item)
    assert half["image"].shape == (1, 5, 4, 3) and half["label"].dtype == torch.int16
    np.testing.assert_array_equal(half["image"].numpy(), half["label"].numpy())
    given = Compose(volume_preprocessing(["image"], size=(8, 8, 8), scale=0.5, **settings))({"image": item["image"]})
    assert given["image"].shape == (1, 4, 4, 4)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"rotate is \[30\], expected 3 values"):
        RandNearestAffined("image", rotate=[30])
    with pytest.raises(ConfigError, match="prob is 80"):
        RandNearestAffined("image", prob=80)
