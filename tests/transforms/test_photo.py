"""QTSeg's recipe for photographs: OpenCV's numbers, the way back, and the ranges of the augmentation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_set import FULL_SET
from monai.data import MetaTensor
from monai.transforms import Compose, SomeOf
from PIL import Image

from medseg.errors import ConfigError, DataError
from medseg.labels import LabelSpace
from medseg.transforms import (
    GREEN,
    RED,
    AreaResized,
    RGBToYCrCbd,
    ToSourceGridd,
    colors_to_labels,
    photo_augmentation,
    photo_preprocessing,
)
from medseg.transforms.colors import rgb_to_hsv
from medseg.transforms.photo import RandLinearContrastd, RandSharedNoised
from medseg.transforms.resize import area_weights

FIXTURES = FULL_SET / "qtseg"
SPACE = LabelSpace.from_table({"labels": {"background": 0, "lesion": 255}})


def files(folder: Path, image: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    Image.fromarray(image).save(folder / "image.png")
    Image.fromarray(mask).save(folder / "mask.png")
    return {"image": str(folder / "image.png"), "label": str(folder / "mask.png"), "case_id": "c"}


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("case", [f"{number}/{color}" for number in range(4) for color in ("rgb", "ycrcb")])
def test_preprocessing_of_the_original(case: str, tmp_path: Path) -> None:
    arrays = np.load(FIXTURES / "preprocess.npz")
    number, color = case.split("/")
    image, mask = arrays[f"{number}/image"], arrays[f"{number}/mask"]
    expected = torch.from_numpy(arrays[f"{case}/x"])
    size = expected.shape[1]
    steps = photo_preprocessing(["image", "label"], size=size, color=color, label_space=SPACE)
    item = Compose(steps)(files(tmp_path, image, (mask > 0).astype(np.uint8) * 255))
    resized = AreaResized("image", size)({"image": torch.from_numpy(image).movedim(2, 0)})["image"]
    grey = arrays[f"{number}/resized_rgb"]
    assert np.abs(resized.numpy().astype(int) - np.moveaxis(grey, 2, 0)).max() <= 1
    spread = int(grey.max()) - int(grey.min())
    assert item["image"].shape == expected.shape
    torch.testing.assert_close(item["image"].as_tensor(), expected, rtol=0, atol=4 / min(spread, 200) + 1e-6)
    assert np.array_equal(item["label"][0].numpy(), arrays[f"{number}/y"])


def test_weights_of_an_axis() -> None:
    assert area_weights(4, 2).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    thirds = area_weights(3, 2)  # a pixel of the result covers one and a half
    torch.testing.assert_close(thirds * 3, torch.tensor([[2, 1, 0], [0, 1, 2]], dtype=torch.float64))
    assert torch.equal(area_weights(5, 5), torch.eye(5, dtype=torch.float64))
    for old, new in ((7, 3), (3, 7), (10, 9), (1, 4), (5, 1)):
        assert torch.allclose(area_weights(old, new).sum(1), torch.ones(new, dtype=torch.float64))


def test_stretch_is_the_older_generation(tmp_path: Path) -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 20:] = 255
    mask = np.zeros((20, 40), np.uint8)
    mask[10:] = 255
    item = Compose(photo_preprocessing(["image", "label"], size=10, fit="stretch", label_space=SPACE))(
        files(tmp_path, image, mask)
    )
    assert item["image"].shape == (3, 10, 10)
    assert (item["image"][:, :, :5] == -1).all() and (item["image"][:, :, 5:] == 1).all()
    assert (item["label"][0, 5:] == 1).all() and (item["label"][0, :5] == 0).all()


@pytest.mark.parametrize("fit", ["longest", "stretch"])
@pytest.mark.parametrize("shape", [(30, 52), (52, 30), (70, 40)])
def test_way_back_to_the_source(fit: str, shape: tuple[int, int], tmp_path: Path) -> None:
    label = np.zeros(shape, np.uint8)
    label[5 : shape[0] - 9, 8:20] = 255
    steps = Compose(photo_preprocessing(["image"], size=64, fit=fit))
    item = steps({"image": files(tmp_path, np.stack([label] * 3, 2), label)["image"]})
    logits = torch.stack((-item["image"][0].as_tensor(), item["image"][0].as_tensor()))
    back = ToSourceGridd("pred", steps, SPACE)({"image": item["image"], "pred": logits})["pred"]
    assert back.shape == (1, *shape)
    wrong = (back[0].numpy() > 0) != (label > 0)
    assert wrong.mean() < 0.08  # the rim, where resizing there and back is not exact


def test_constant_image_has_no_nan(tmp_path: Path) -> None:
    data = files(tmp_path, np.full((8, 8, 3), 7, np.uint8), np.zeros((8, 8), np.uint8))
    assert Compose(photo_preprocessing(["image"], size=8))(data)["image"].isfinite().all()


@pytest.mark.usefixtures("full_set")
def test_painted_masks_of_the_original() -> None:
    arrays = np.load(FIXTURES / "bkai_mask.npz")
    assert np.array_equal(colors_to_labels(arrays["rgb"], {1: GREEN, 2: RED}), arrays["label"])


def test_colors_by_hand() -> None:
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 64, 64), (90, 0, 10)]
    rgb = np.array([colors], np.uint8)
    assert rgb_to_hsv(rgb)[0].tolist() == [
        [0, 255, 255],
        [60, 255, 255],
        [120, 255, 255],
        [0, 0, 255],
        [0, 0, 0],
        [0, 128, 128],
        [177, 255, 90],
    ]
    assert colors_to_labels(rgb, {1: GREEN, 2: RED})[0].tolist() == [2, 1, 0, 0, 0, 2, 2]
    with pytest.raises(DataError, match="expected"):
        colors_to_labels(rgb[0], {1: GREEN})


def test_luma_and_differences_by_hand() -> None:
    rgb = torch.tensor([[255, 0, 0], [0, 0, 0], [255, 255, 255], [10, 200, 30]], dtype=torch.float32).T[..., None]
    result = RGBToYCrCbd("image")({"image": rgb})["image"]
    assert result.dtype == torch.float32
    assert result[..., 0].T.tolist() == [[76, 255, 85], [0, 128, 128], [255, 128, 128], [124, 47, 75]]
    with pytest.raises(DataError, match="expected 3"):
        RGBToYCrCbd("image")({"image": rgb[:1]})


def test_training_gives_plain_tensors_and_cached_part_is_fixed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 30), np.uint8)
    mask[10:30, 5:20] = 255
    data = files(tmp_path, rng.integers(0, 256, (40, 30, 3), dtype=np.uint8), mask)
    steps = photo_preprocessing(["image", "label"], size=32, label_space=SPACE, random=photo_augmentation(32))
    kinds = [type(step).__name__ for step in steps]
    assert kinds.index("SomeOf") == kinds.index("SpatialPadd") + 1
    pipeline = Compose(steps)
    seen = []
    for seed in range(12):
        item = pipeline.set_random_state(seed)(dict(data))
        assert item["image"].shape == (3, 32, 32) and item["label"].shape == (1, 32, 32)
        assert not isinstance(item["image"], MetaTensor) and item["label"].dtype == torch.int16
        assert float(item["image"].min()) == pytest.approx(-1) and float(item["image"].max()) == pytest.approx(1)
        assert set(item["label"].unique().tolist()) <= {0, 1}
        seen.append(item["image"])
        again = pipeline.set_random_state(seed)(dict(data))
        assert torch.equal(again["image"], item["image"]) and torch.equal(again["label"], item["label"])
    assert sum(not torch.equal(seen[0], other) for other in seen[1:]) >= 8


def test_image_and_label_move_together() -> None:
    """A bright square is the label: every geometric step moves both alike."""
    (choice,) = photo_augmentation(64)
    assert isinstance(choice, SomeOf) and len(choice.transforms) == 10
    assert (choice.min_num_transforms, choice.max_num_transforms, choice.replace) == (0, 4, False)
    square = torch.zeros(1, 64, 64)
    square[:, 20:44, 24:40] = 200
    areas: dict[str, list[float]] = {}
    for number, step in enumerate(choice.transforms):
        for seed in range(30):
            step.set_random_state(seed) if hasattr(step, "set_random_state") else None
            item = step({"image": MetaTensor(square.repeat(3, 1, 1)), "label": MetaTensor((square > 0).float())})
            differs = (item["image"][0] > 100) != (item["label"][0] > 0.5)
            assert differs.float().mean() < 0.03, number
            areas.setdefault(f"{number}{type(step).__name__}", []).append(float(item["label"].sum()) / (24 * 16))
    zoom = areas["5RandZoomd"]  # each axis from 0.5 to 2
    assert 0.2 < min(zoom) < 0.8 and 1.5 < max(zoom) < 4.1 and np.mean(zoom) == pytest.approx(1.5625, rel=0.25)
    assert all(abs(area - 1) < 0.15 for area in areas["6RandAffined"] + areas["7RandAffined"])
    assert areas["0RandFlipd"] == [1.0] * 30


def test_contrast_and_noise_per_channel() -> None:
    image = torch.rand(3, 32, 32) * 200 + 20
    contrast = RandLinearContrastd("image", factors=(0.5, 1.5))
    shared, factors = 0, []
    for seed in range(60):
        result = contrast.set_random_state(seed)({"image": torch.full((3, 2, 2), 137.0)})["image"]
        found = (result[:, 0, 0] - 127) / 10
        shared += len(set(found.tolist())) == 1
        factors += found.tolist()
    assert 18 < shared < 42 and 0.5 <= min(factors) < 0.6 and 1.4 < max(factors) <= 1.5
    noise = RandSharedNoised("image", std=1.275).set_random_state(0)({"image": image})["image"] - image
    torch.testing.assert_close(noise[0], noise[1], rtol=0, atol=1e-4)
    assert float(noise.std()) == pytest.approx(1.275, rel=0.1)


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match="stretch"):
        AreaResized("image", 8, fit="shortest")
    with pytest.raises(ConfigError, match="ycrcb"):
        photo_preprocessing(["image"], color="hsv")
    assert math.isclose(AreaResized("image", 512).new_size(767, 1022)[0], 384)
