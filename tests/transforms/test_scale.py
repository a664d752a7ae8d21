"""Fractions of a field of view: published sizes, alignment of image and label, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, SpatialPadd

from medseg.errors import ConfigError
from medseg.labels import IGNORE, LabelSpace
from medseg.transforms import ScaleSized, ToSourceGridd, scaled_size

SPACE = LabelSpace.from_table({"0": "background", "1": "a", "2": "b"})


def _ball(size: tuple[int, int, int], center: tuple[float, float, float], radius: float) -> torch.Tensor:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1)
    return torch.from_numpy(((grid - center) ** 2).sum(-1) <= radius**2)[None]


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [  # the sizes of the publication (arXiv 2507.08205), in its order W x H x D
        ((240, 240, 155), 0.5, (120, 120, 78)),
        ((240, 240, 155), 1 / 3, (80, 80, 52)),
        ((240, 240, 155), 0.25, (60, 60, 39)),
        ((256, 256, 128), 0.3333333, (86, 86, 43)),
        ((224, 160, 208), 1 / 3, (75, 54, 70)),
        ((3, 3, 3), 0.01, (1, 1, 1)),
    ],
)
def test_sizes_are_the_published_ones(size, scale, expected):
    assert scaled_size(size, scale) == expected


def _center(volume: MetaTensor) -> np.ndarray:
    """The centre of mass in mm."""
    weights = volume[0].numpy().astype(float)
    index = [(np.indices(weights.shape)[axis] * weights).sum() / weights.sum() for axis in range(3)]
    return (volume.affine.numpy() @ [*index, 1])[:3]


@pytest.mark.parametrize("scale", [0.5, 0.4, 2.0])
def test_image_and_label_stay_where_they_are(scale):
    """Balls keep their centre in the world and their volume."""
    affine = torch.diag(torch.tensor([0.8, 1.0, 2.0, 1.0], dtype=torch.float64))
    shifts: dict[str, list] = {"image": [], "label": []}
    shares = []
    for seed in range(8):
        center = np.random.default_rng(seed).uniform(8, 11, 3)
        ball = _ball((24, 20, 22), tuple(center), 6)
        data = {"image": MetaTensor(ball.float(), affine=affine), "label": MetaTensor(2 * ball.short(), affine=affine)}
        scaled = ScaleSized(["image", "label"], scale)(data)
        assert set(scaled["label"].unique().tolist()) == {0.0, 2.0}
        for key, found in shifts.items():
            assert tuple(scaled[key].shape[1:]) == scaled_size((24, 20, 22), scale)
            found.append(_center(scaled[key]) - _center(data[key]))
        shares.append((scaled["label"] > 0).float().mean() / ball.float().mean())
    assert np.abs(np.mean(shifts["image"], 0)).max() < 0.03  # mm
    assert np.abs(np.mean(shifts["label"], 0)).max() < 0.2  # nearest: up to half a voxel of the source, 1 mm
    assert np.mean(shares) == pytest.approx(1, abs=0.05)


def test_an_axis_is_left_alone():
    volume = MetaTensor(torch.rand(1, 8, 6, 5))
    assert ScaleSized("image", 0.5, kept_axis=2)({"image": volume})["image"].shape == (1, 4, 3, 5)
    assert scaled_size((8, 6, 5), 0.5, 0) == (8, 3, 3)


def test_ignored_voxels_and_nearest_values_survive():
    label = torch.zeros(1, 8, 8, dtype=torch.int16)
    label[:, :4], label[:, 4:, :4] = IGNORE, 1
    small = ScaleSized("label", 0.5)({"label": MetaTensor(label)})["label"]
    assert torch.equal(small[0, :2], torch.full((2, 4), float(IGNORE)))
    assert torch.equal(small[0, 2:], torch.tensor([[1.0, 1, 0, 0]] * 2))
    ramp = torch.arange(6.0)[None, :, None].repeat(1, 1, 6)
    nearest = ScaleSized("image", 0.5, mode="nearest")({"image": MetaTensor(ramp)})["image"]
    assert nearest.shape == (1, 3, 3) and set(nearest.unique().tolist()) <= set(range(6))


def test_predictions_come_back_to_the_source_grid():
    ball = _ball((24, 20, 22), (9.5, 11.0, 8.5), 6)
    preprocessing = Compose([ScaleSized("image", 0.5), SpatialPadd("image", (16, 16, 16))])
    affine = torch.diag(torch.tensor([0.8, 1.0, 2.0, 1.0], dtype=torch.float64))
    item = preprocessing({"image": MetaTensor(ball.float(), affine=affine)})
    inside = item["image"].as_tensor()
    item["pred"] = torch.cat([torch.full_like(inside, 0.5), inside, -torch.ones_like(inside)]) * 8
    pred = ToSourceGridd("pred", preprocessing, SPACE)(item)["pred"]
    assert pred.shape == ball.shape
    np.testing.assert_allclose(pred.affine.numpy(), affine.numpy(), atol=1e-9)
    overlap = 2 * ((pred == 1) & ball).sum() / ((pred == 1).sum() + ball.sum())
    assert overlap > 0.93
    np.testing.assert_allclose(_center(pred), _center(MetaTensor(ball, affine=affine)), atol=0.15)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_the_inverse_is_linear_unless_nearest_is_asked_for(mode):
    image = MetaTensor(torch.rand(1, 8, 8, 8))
    transform = Compose([ScaleSized("image", 0.5, mode=mode)])
    item = transform({"image": image})
    item["pred"] = MetaTensor(torch.arange(64.0).reshape(1, 4, 4, 4))
    for nearest, count in ((False, True), (True, False)):
        back = Invertd("pred", transform=transform, orig_keys="image", nearest_interp=nearest)(item)["pred"]
        assert back.shape == image.shape
        assert (len(back.unique()) > 64) == count


def test_a_size_can_be_given_and_wrong_values_are_refused():
    image = MetaTensor(torch.rand(1, 9, 7, 5))
    assert ScaleSized("image", 0.5, size=(20, 10, 6))({"image": image})["image"].shape == (1, 10, 5, 3)
    with pytest.raises(ConfigError, match="scale is 0"):
        ScaleSized("image", 0)
    with pytest.raises(ConfigError, match="mode 'cubic'"):
        ScaleSized("image", 0.5, mode="cubic")
